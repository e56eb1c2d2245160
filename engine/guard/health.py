"""What a guard knows of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class GuardHealth:
    """`multiplying_clients` retry themselves, `doubled_clients` are served by two guards: there, attempts multiply.

    `retried_outside`: calls that came again from a client which retries itself. `faults`: how often which of the
    guard's own parts failed; no call failed for it.
    """

    multiplying_clients: int = 0
    doubled_clients: int = 0
    retried_outside: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, a sentence each."""
        said = []
        if self.multiplying_clients:
            said.append(
                f"attempts would multiply: {self.multiplying_clients} clients retry beside their guard; "
                "use relight.guarded(client), or max_retries=0"
            )
        if self.retried_outside and not self.multiplying_clients:
            said.append(f"attempts multiply: {self.retried_outside} calls were retried by their client")
        if self.doubled_clients:
            said.append(f"attempts would multiply: {self.doubled_clients} clients have two guards; leave one")
        said += [f"the guard's {part} failed {times} times: see the log" for part, times in self.faults.items()]
        return tuple(said)
