"""What a stream is declared with that is not as the guarantees need it; replicas and limits are its owner's choice."""

from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType, StreamConfig

from relight.engine.log.topology import stream_config


def setting_faults(config: StreamConfig) -> list[str]:
    """All of them."""
    return [*keeping_faults(config), *_serving_faults(config)]


def keeping_faults(config: StreamConfig) -> list[str]:
    """Those by which an acknowledged event may not be kept, or not be kept once."""
    wanted = stream_config()
    lacking = sorted(set(wanted.subjects or ()) - set(config.subjects or ()))
    found = {
        f"subjects {lacking} are not its own": bool(lacking),
        f"it is stored in {config.storage}, not in files": config.storage != StorageType.FILE,
        "retention is not limits: messages go once they are read": config.retention
        not in (None, RetentionPolicy.LIMITS),
        "discard is not new: old events are dropped when it is full": config.discard != DiscardPolicy.NEW,
        "max_msgs_per_subject drops events": (config.max_msgs_per_subject or 0) > 0,
        f"duplicate_window is below {wanted.duplicate_window:g} s": config.duplicate_window < wanted.duplicate_window,
        "deny_delete is off": not config.deny_delete,
        "no_ack is on: nothing is acknowledged": config.no_ack,
        "it is sealed: nothing can be recorded": config.sealed,
        f"persist_mode {config.persist_mode} acknowledges before it writes": config.persist_mode
        not in (None, PersistMode.DEFAULT),
    }
    return [fault for fault, holds in found.items() if holds]


def _serving_faults(config: StreamConfig) -> list[str]:
    found = {"allow_direct is off": not config.allow_direct, "allow_atomic is off": not config.allow_atomic}
    return [fault for fault, holds in found.items() if holds]
