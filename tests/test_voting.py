"""What one region's service says of others: it accuses nobody for its own deafness, and takes back what was wrong."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
import stack
from beating import Scripted, beat
from test_isolation import recorded, vote

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.policies.isolation import IsolationPolicy
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heartbeats import WORKER
from relight.engine.regions.isolations import Isolations
from relight.engine.regions.voting import Voting
from relight.events.base import Event
from relight.events.catalog import decode_message
from relight.events.faults import DomainType, FaultIsolated, FaultVote

pytestmark = pytest.mark.asyncio(loop_scope="module")
POLICY = IsolationPolicy.of(("ap", "eu", "us"), vote_s=30, settle_s=2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats() -> AsyncIterator[EmbeddedNats]:
    async with stack.nats_server() as server:
        yield server


@dataclass
class Scene:
    """The service of eu; senders that `live` send every half a second."""

    nats: EmbeddedNats
    recorder: Recorder
    observer: str
    live: dict[str, tuple[str, str]] = field(default_factory=lambda: {"us": ("us", "service"), "ap": ("ap", "service")})

    def __post_init__(self) -> None:
        self.scripted = Scripted(self.recorder)
        self.isolations = Isolations(self.recorder, POLICY.regions)
        self.voting = Voting(self.recorder, self.scripted.heard, self.isolations, POLICY, observer=self.observer)
        self.seq = 0

    def pass_s(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self.seq += 1
            for id, (region, kind) in self.live.items():
                self.scripted.heard.take(beat(id, region=region, kind=kind, seq=self.seq))
            self.scripted.pass_s(0.5, self.voting.look)

    def rule(self, data: Event, rev: int) -> None:
        assert isinstance(data, FaultIsolated)
        followed = self.isolations.followed(data.domain_type, data.domain_identifier)
        self.isolations._observe(followed, recorded(data, 0, rev=rev))

    async def votes(self) -> list[str]:
        """All that it said, from the stream."""
        self.recorder.mark()
        await stack.drained(self.recorder)
        async with stack.connected(self.nats) as client:
            found = [decode_message(m.subject, m.body, m.timestamp_ms).data for m in await stack.on_stream(client)]
        own = [data for data in found if isinstance(data, FaultVote) and data.observer == self.observer]
        return [f"{data.TYPE.partition('.')[2]} {data.domain_identifier}" for data in own]


@pytest.fixture
def scene(nats: EmbeddedNats, request: pytest.FixtureRequest) -> Iterator[Scene]:
    with Recorder(stack.options(nats)) as recorder:
        yield Scene(nats, recorder, re.sub(r"\W", "-", request.node.name)[:100])


def isolated(kind: DomainType = DomainType.REGION, name: str = "us") -> FaultIsolated:
    return FaultIsolated(domain_type=kind, domain_identifier=name, cause="missed", scope="all", voters=("x",))


async def test_a_region_that_falls_silent_is_suspected_and_trusted_once_it_was_heard_for_a_while(scene: Scene) -> None:
    scene.pass_s(10)
    gone = scene.live.pop("us")
    scene.pass_s(4)
    assert scene.voting.votes == 1
    scene.live["us"] = gone
    scene.pass_s(1.5)
    assert scene.voting.votes == 1
    scene.pass_s(2)
    assert await scene.votes() == ["suspected us", "trusted us"]


async def test_who_hears_nobody_says_nothing_and_nothing_at_once_when_he_hears_again(scene: Scene) -> None:
    scene.pass_s(10)
    own = {"own": ("eu", WORKER)}
    away, scene.live = scene.live | own, own
    scene.pass_s(60)
    assert scene.voting.cut_off
    scene.live = own | {"us": away["us"]}  # the other one a little later
    scene.pass_s(1)
    scene.live = away
    scene.pass_s(10)
    assert await scene.votes() == []


async def test_a_suspicion_is_said_again_until_it_is_ruled_on(scene: Scene) -> None:
    scene.pass_s(10)
    del scene.live["us"]
    scene.pass_s(25)
    assert scene.voting.votes == 3, "every third of the time for which a vote counts"
    scene.rule(isolated(), 1)
    scene.pass_s(60)
    assert await scene.votes() == ["suspected us"] * 3


async def test_an_isolated_region_that_is_heard_is_trusted_by_those_who_never_suspected_it_too(scene: Scene) -> None:
    scene.pass_s(5)
    scene.rule(isolated(), 1)
    scene.pass_s(1)
    assert await scene.votes() == ["trusted us"]


async def test_an_isolated_region_that_was_never_heard_is_given_no_trust(scene: Scene) -> None:
    del scene.live["us"]
    scene.rule(isolated(), 1)
    scene.pass_s(25)
    assert await scene.votes() == []


async def test_what_an_earlier_start_of_this_service_suspected_is_taken_back(scene: Scene) -> None:
    followed = scene.isolations.followed(DomainType.REGION, "us")
    scene.isolations._observe(followed, vote("eu", 1, observer=scene.observer))
    scene.pass_s(5)
    assert await scene.votes() == ["trusted us"]


async def test_agents_are_suspected_one_by_one_but_not_those_of_a_region_that_is_gone(scene: Scene) -> None:
    scene.live |= {"w-us": ("us", WORKER), "w-ap": ("ap", WORKER), "w-ap-2": ("ap", WORKER), "w-eu": ("eu", WORKER)}
    scene.pass_s(10)
    for gone in ("us", "w-us", "w-ap", "w-eu"):
        del scene.live[gone]
    scene.pass_s(6)
    assert sorted(await scene.votes()) == ["suspected us", "suspected w-ap", "suspected w-eu"]


async def test_an_agent_that_stops_on_purpose_is_not_suspected(scene: Scene) -> None:
    scene.live["w"] = ("us", WORKER)
    scene.pass_s(5)
    del scene.live["w"]
    scene.scripted.heard.take(beat("w", region="us", kind=WORKER, seq=scene.seq + 1, leaving=True))
    scene.pass_s(60)
    assert await scene.votes() == []


async def test_a_service_that_was_stopped_itself_accuses_nobody(scene: Scene) -> None:
    scene.pass_s(10)
    scene.scripted.us += 300_000_000
    scene.voting.look()
    scene.pass_s(10)
    assert await scene.votes() == []
