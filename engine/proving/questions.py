"""How a prober is asked over NATS, and where it says that something changed."""

from pydantic import BaseModel, ConfigDict

from relight.engine.proving.models import Attestation

QUESTION = "proof.ask"
"""Only the service's login may listen here, and publish what comes next: all others would be believed in its place."""
PUSHED = "proof.said"


class Question(BaseModel):
    """`nonce` comes back, so that who did not see the question cannot answer it. `fresh`: asked for from now on."""

    model_config = ConfigDict(frozen=True)

    nonce: str
    fresh: bool = False


class Notice(BaseModel):
    """That what is proven has changed: ask again."""

    model_config = ConfigDict(frozen=True)

    proven: bool


class Answer(BaseModel):
    """What the prober found, to the question of this nonce."""

    model_config = ConfigDict(frozen=True)

    nonce: str
    attestation: Attestation
