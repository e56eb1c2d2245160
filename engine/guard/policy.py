"""How a guard retries and breaks, and how long a call may take."""

from pydantic import BaseModel, ConfigDict, Field

from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.policies.retry import RETRIED, RetryOptions

OF_MODELS = BreakerPolicy(consecutive_failures=12)
"""More than one call makes by itself (a first attempt, four retries, six after overloads): a call that alone meets
an overload lives through it rather than trip the breaker that then refuses it."""


class GuardPolicy(BaseModel):
    """What a guard is told; each of its parts takes what concerns it.

    `deadline_s` covers all attempts and waits of a call up to its answer, or to the head of a stream; a nearer one of
    the caller's (`relight.deadline`) comes first, and bounds the whole stream.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    retries: int = Field(default=4, ge=0, le=100)
    waits_s: tuple[float, ...] = Field(default=(1, 2, 4, 8), description="before the retries, in order")
    overload_retries: int = Field(default=6, ge=0, le=100, description="after a 529, counted for themselves")
    overload_waits_s: tuple[float, ...] = (2, 4, 8, 16, 32, 60)
    rate_limit_wait_s: float = Field(default=60, ge=0, description="after a 429 that does not say how long")
    jitter: float = Field(default=0.25, ge=0, le=1, description="share of a wait that is left to chance")
    retried: frozenset[str] = RETRIED
    deadline_s: float = Field(default=600, gt=0, allow_inf_nan=False)
    breaker: BreakerPolicy | None = Field(default=OF_MODELS, description="None: no dependency is broken")
    wait_for_capacity_s: float = Field(
        default=0, ge=0, allow_inf_nan=False, description="how long a call waits, once all breakers refuse it"
    )

    @property
    def retry(self) -> RetryOptions:
        return RetryOptions(
            retries=self.retries,
            waits_s=self.waits_s,
            overload_retries=self.overload_retries,
            overload_waits_s=self.overload_waits_s,
            rate_limit_wait_s=self.rate_limit_wait_s,
            jitter=self.jitter,
            retried=self.retried,
        )
