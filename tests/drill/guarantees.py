"""What must hold at rest, whatever happened before: nothing lost, nothing doubled, both stores alike."""

from reporting import Report
from scene import Scene
from standing import differing, history_rows, on_stream
from traffic import IN_HISTORY


async def check(scene: Scene, report: Report, phase: str) -> None:
    """At rest: `Scene.at_rest` was awaited."""
    stream = await on_stream(scene.nats.url)
    published = [line.split() for line in scene.ids.read_text().splitlines()]
    ids = [id for id, _ in published]
    lost = [id for id in ids if not stream.ids[id]]
    report.promise(
        phase,
        "published events on the stream, each once",
        f"{len(ids) - len(lost):,} of {len(ids):,}, {len(stream.doubled):,} doubled",
        asked="all",
        kept=not lost and not stream.doubled,
        detail=f"lost {lost[:3]}, doubled {stream.doubled[:3]}",
    )
    report.promise(
        phase,
        "publishers whose numbers run without a hole",
        f"{len(stream.numbers) - len(stream.out_of_order)} of {len(stream.numbers)}",
        asked="all",
        kept=not stream.out_of_order,
        detail=str(stream.out_of_order[:3]),
    )
    wanted = [id for id, type in published if type.startswith(IN_HISTORY)]
    rows = await history_rows(scene.postgres.url, wanted)
    report.promise(
        phase,
        "published events in the history tables, each once",
        f"{len(rows):,} of {len(wanted):,}, {rows.total() - len(rows):,} doubled",
        asked="all",
        kept=len(rows) == len(wanted) == rows.total(),
        detail=str([id for id in wanted if id not in rows][:3]),
    )
    await _compare_digests(scene, report, phase)


async def _compare_digests(scene: Scene, report: Report, phase: str) -> None:
    live = await scene.fleet.command("digest")
    memory = await scene.fleet.command("digest", "--store", "memory")
    of_live, of_memory = live["tables"], memory["tables"]
    assert isinstance(of_live, dict)
    assert isinstance(of_memory, dict)
    unequal = differing(of_live, of_memory)
    report.promise(
        phase,
        "tables whose digests are equal, live and folded anew from the stream",
        f"{len(of_memory) - len(unequal)} of {len(of_memory)}",
        asked="all",
        kept=not unequal and live["seq"] == memory["seq"],
        detail=f"{unequal}, at {live['seq']} and {memory['seq']}",
    )
    report.promise(
        phase, "dead letters", str(live["deadletters"]), asked="0", kept=live["deadletters"] == 0, detail="see above"
    )
