"""Goes on recording under another identity when a spool is of no use any more; what was taken goes along."""

import logging
import shutil
from contextlib import suppress
from functools import partial

import uuid_utils

from relight.engine.clock import Clock
from relight.engine.errors import SpoolFault, SpoolUnusable
from relight.engine.recorder.items import Item, Taken
from relight.engine.recorder.options import RecorderOptions
from relight.engine.recorder.session import Session
from relight.engine.spool.aside import ADOPTED, adopt, put_aside
from relight.engine.spool.rows import Acked, ControlCopy, SpooledContent
from relight.engine.spool.slots import Slot, say_aside, take_slot, undurable_slot
from relight.engine.spool.spool import Spool
from relight.events.recorder import RecorderGap

LEAVING_S = 1.0
ROOM_AGAIN_BYTES = 8 << 20
"""Free on a disk that was full, before it is written on again."""

log = logging.getLogger(__name__)


def hand_over(old: Session, options: RecorderOptions, clock: Clock) -> Session | None:
    """The session that takes the place of `old`, started; None when that has to go on for now."""
    slot = None
    if old.spool_fault is not None and (slot := _durable_slot(old, options)) is None:
        return None
    if not old.writer.leave(LEAVING_S):
        if slot is not None:
            slot.close()
        return None
    old.uplink.stop(LEAVING_S)
    unwritten = old.writer.unwritten()
    _leave_spool(old, options)
    if slot is None and old.writer.disk.fault is SpoolFault.FULL:
        new = Session(options, clock, slot=undurable_slot(), spool_fault=old.writer.disk.failure)
    else:
        new = Session(options, clock, slot=slot)
    new.carry(old)
    new.start()
    take_over = partial(_take_over, new)
    items: list[Item] = [*unwritten.contents, *unwritten.events, *unwritten.copies]
    for item in items:
        take_over(item)
    old.followed_by(new)
    old.writer.rest = take_over
    old.writer.sweep()
    log.warning("recording goes on as %s in place of %s", new.publisher, old.publisher, extra={"action": "handed_over"})
    return new


def _durable_slot(old: Session, options: RecorderOptions) -> Slot | None:
    """Of a recorder that has no disk for the moment: whether it has one again."""
    assert options.spools is not None
    try:
        if old.fault is SpoolFault.FULL and shutil.disk_usage(options.spools).free < ROOM_AGAIN_BYTES:
            return None
        return take_slot(options.spools, max_bytes=options.spool_max_bytes)
    except (SpoolUnusable, OSError):
        return None


def _leave_spool(old: Session, options: RecorderOptions) -> None:
    """So that it is drained by whoever drains what is left behind, this process included."""
    slot = old.slot
    path, damage = slot.spool.path, old.damage
    keeper = None
    try:
        if not slot.spool.durable:
            _keep_on_disk(slot, options)
        elif damage is not None:
            with suppress(SpoolUnusable):  # who closes last writes the WAL into the file: not into a damaged one
                keeper = Spool(path, read_only=True)
        slot.spool.close()
        if damage is not None and damage.fault is SpoolFault.FORKED:
            log.error("%s. Its spool is drained as %s", damage, adopt(path).name, extra={"action": "spool_adopted"})
        elif damage is not None:
            say_aside(damage, put_aside(path, damage.fault, str(damage), publisher=slot.publisher))
    except OSError as error:  # it stays where it is: the next one tries again
        log.error("spool %s cannot be put aside: %s", path, error, extra={"action": "aside_failed"})
    finally:
        slot.close()
        if keeper is not None:
            keeper.close()


def _keep_on_disk(slot: Slot, options: RecorderOptions) -> None:
    """What was held in memory, and is not on the stream."""
    exposure = slot.spool.exposure()
    if options.spools is None or not exposure.bytes:
        return
    slot.spool.set_meta({"publisher": slot.publisher})
    path = options.spools / f"{ADOPTED}{uuid_utils.uuid4().hex}.db"
    try:
        slot.spool.copy_to(path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    except (SpoolUnusable, OSError) as error:
        log.error(
            "%d events of %s are lost: they were in memory, and cannot be written to %s (%s)",
            exposure.events,
            slot.publisher,
            path.parent,
            error,
            extra={"action": "events_lost"},
        )


def _take_over(new: Session, item: Item) -> None:
    match item:
        case Taken() if item.counted_bytes:
            item.receipt.moved_to(new)
            new.room.adopt([item.counted_bytes], [])
            new.writer.put(item)
        case Taken() if item.type == RecorderGap.TYPE:
            new.writer.put(item)
        case SpooledContent():
            new.room.adopt([], [len(item.body)])
            new.writer.put(item)
        case ControlCopy():
            new.writer.put(item)
        case Acked():
            pass  # it is noted in the other spool
        case tuple():
            new.room.adopt_expected(item[3])
            new.writer.defer(item)
            if new.writer.ended:
                new.writer.look(at_once=False)
        case _:
            pass  # so is what was to be done there
