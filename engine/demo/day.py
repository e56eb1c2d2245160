"""The script: which storylines make up the day; each tells in its own file what happens at which time."""

from relight.engine.demo.brownout import brownout, ledger_down
from relight.engine.demo.certifying import certification
from relight.engine.demo.incident import incident
from relight.engine.demo.memory import snapshots
from relight.engine.demo.opening import declarations, drill, queue_copies
from relight.engine.demo.region_loss import region_loss
from relight.engine.demo.stage import Teller
from relight.engine.demo.tasks import tasks
from relight.engine.demo.traffic import traffic
from relight.engine.demo.world import REGIONS


def storylines() -> tuple[Teller, ...]:
    """All of them; of two at the same time the first one here goes first."""
    return (
        declarations,
        *tasks(),
        *map(traffic, REGIONS),
        snapshots,
        queue_copies,
        drill,
        brownout,
        region_loss,
        incident,
        certification,
        ledger_down,
    )
