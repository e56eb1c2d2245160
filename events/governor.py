"""The safety governor: how much of a fleet is switched off in a disaster, and how it comes back."""

from typing import Literal

from relight.events.base import Control
from relight.events.values import JsonObject, Key, Keys, Text, Time

RaisedLevel = Literal["degraded", "minimal", "emergency"]
"""Every level but `normal`, in rising order."""


class GovernorRuling(Control, policy="governor", entity="fleet"):
    """What every ruling on a fleet's mode carries.

    `signals` are the measurements that led to it; `ordered_by` names the operator where a person ruled.
    """

    fleet: Key
    reason: Text
    signals: JsonObject = {}
    ordered_by: Key | None = None


class DisasterModeActivated(GovernorRuling, type="governor.activated"):
    """The fleet left `normal`: `disabled_features` are off."""

    mode_level: RaisedLevel
    disabled_features: Keys


class DisasterModeEscalated(GovernorRuling, type="governor.escalated"):
    """The level rose; `disabled_features` are all that are off now."""

    mode_level: RaisedLevel
    from_level: RaisedLevel
    disabled_features: Keys
    activated_at: Time


class DisasterModeDeescalated(GovernorRuling, type="governor.deescalated"):
    """The level fell, but not to `normal`; `disabled_features` are all that are still off."""

    mode_level: RaisedLevel
    from_level: RaisedLevel
    disabled_features: Keys
    activated_at: Time


class DisasterModeDeactivated(GovernorRuling, type="governor.deactivated"):
    """The fleet is `normal` again: nothing is off."""

    from_level: RaisedLevel
    activated_at: Time
