"""A topology's file, and the rules that it has to keep: each refusal names its rule."""

import pickle
from pathlib import Path

import pytest

from relight.engine.errors import TopologyRefused
from relight.engine.servers import told_servers
from relight.engine.settings import Settings
from relight.engine.topology.differences import declared_fleet
from relight.engine.topology.loading import load_topology, parse_topology
from relight.engine.topology.model import Kind
from relight.events.failover import Manner

WHOLE = """
[fleet]
name = "agents"
kind = "stretch"
max_failovers = 3
window_s = 600
drain_s = 20
suspect_phi = 8.0
heartbeat_s = 0.5
[regions.eu]
residency = "eu"
allowed = ["us", "ap"]
[regions.us]
[regions.ap]
[[policies]]
name = "eu-lost"
source = "eu"
fallbacks = ["us", "ap"]
conditions = { suspected_by = 2, for_s = 2 }
manner = "forced"
[[queues]]
name = "refunds"
primary = "eu"
replicas = ["us", "ap"]
"""
FLEET = '[fleet]\nkind = "stretch"\n'
THREE = "[regions.eu]\n[regions.us]\n[regions.ap]\n"


def policy(source: str = "eu", fallbacks: str = '["us"]', more: str = "") -> str:
    return f'[[policies]]\nname = "p"\nsource = "{source}"\nfallbacks = {fallbacks}\n{more}\n'


def queue(primary: str = "eu", replicas: str = '["us"]') -> str:
    return f'[[queues]]\nname = "q"\nprimary = "{primary}"\nreplicas = {replicas}\n'


BROKEN = {
    "nothing but a region": ("two_regions", FLEET + "[regions.eu]"),
    "no region at all": ("two_regions", FLEET + "[regions]"),
    "two regions": ("odd_quorum", FLEET + "[regions.eu]\n[regions.us]"),
    "four regions": ("odd_quorum", FLEET + THREE + "[regions.sa]"),
    "seven regions": ("odd_quorum", FLEET + THREE + "[regions.a]\n[regions.b]\n[regions.c]\n[regions.d]"),
    "a zone of two": ("one_region", '[fleet]\nkind = "zone"\n[regions.eu]\n[regions.us]'),
    "a mesh": ("known_kind", '[fleet]\nkind = "mesh"\n' + THREE),
    "another kind": ("known_kind", '[fleet]\nkind = "ring"\n' + THREE),
    "a policy's unknown source": ("known_regions", FLEET + THREE + policy(source="mars")),
    "a policy's unknown fallback": ("known_regions", FLEET + THREE + policy(fallbacks='["mars"]')),
    "a queue's unknown primary": ("known_regions", FLEET + THREE + queue(primary="mars")),
    "a queue's unknown replica": ("known_regions", FLEET + THREE + queue(replicas='["mars"]')),
    "an unknown region allowed": ("known_regions", FLEET + THREE.replace("eu]", 'eu]\nallowed = ["mars"]')),
    "a fallback elsewhere": ("residency", FLEET + THREE.replace("eu]", 'eu]\nresidency = "eu"') + policy()),
    "a fallback onto itself": ("not_onto_itself", FLEET + THREE + policy(fallbacks='["us", "eu"]')),
    "a queue's replica at home": ("not_onto_itself", FLEET + THREE + queue(replicas='["eu"]')),
    "a fallback twice": ("named_once", FLEET + THREE + policy(fallbacks='["us", "us"]')),
    "two policies of a name": ("named_once", FLEET + THREE + policy() + policy()),
    "more votes than others": ("reachable_votes", FLEET + THREE + policy(more="conditions = { suspected_by = 3 }")),
    "half an address": ("whole_addresses", FLEET + THREE.replace("eu]", 'eu]\nnats = "nats://eu"')),
    "addresses of some": (
        "whole_addresses",
        FLEET + THREE.replace("eu]", 'eu]\nnats = "nats://eu"\ndatabase = "postgresql://eu"'),
    ),
    "no TOML": ("readable", "[fleet"),
    "a word for a number": ("valid_values", FLEET.replace("[fleet]", '[fleet]\nheartbeat_s = "often"') + THREE),
    "no fallback": ("valid_values", FLEET + THREE + policy(fallbacks="[]")),
    "no fleet": ("valid_values", THREE),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_input_is_refused_with_the_rules_name(name: str) -> None:
    rule, text = BROKEN[name]
    with pytest.raises(TopologyRefused) as refused:
        parse_topology(text)
    assert refused.value.rule == rule
    assert rule in str(refused.value)
    assert pickle.loads(pickle.dumps(refused.value)).rule == rule


@pytest.mark.parametrize(
    ("text", "path", "known"),
    [
        (FLEET + "colour = 1\n" + THREE, "fleet.colour", "heartbeat_s"),
        (FLEET + THREE + "colour = 1\n", "regions.ap.colour", "residency"),
        (FLEET + THREE + policy(more="colour = 1"), "policies.0.colour", "fallbacks"),
        (FLEET + THREE + policy(more="conditions = { colour = 1 }"), "policies.0.conditions.colour", "suspected_by"),
        (FLEET + THREE + queue() + "colour = 1\n", "queues.0.colour", "primary"),
        ("colour = 1\n" + FLEET + THREE, "colour", "regions"),
    ],
)
def test_an_unknown_field_is_named_with_its_path_and_the_known_ones(text: str, path: str, known: str) -> None:
    with pytest.raises(TopologyRefused) as refused:
        parse_topology(text)
    assert refused.value.rule == "known_fields"
    assert path in refused.value.detail
    assert known in refused.value.detail


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "topology.toml"
    path.write_text(WHOLE)
    topology = load_topology(path)
    assert topology.names == ("eu", "us", "ap")
    assert (topology.quorum, topology.replicas, topology.local) == (2, 3, True)
    [stands_in] = topology.policies
    assert (stands_in.fallbacks, stands_in.conditions.suspected_by) == (("us", "ap"), 2)
    assert stands_in.manner is Manner.FORCED
    assert topology.queues[0].replicas == ("us", "ap")


def test_a_file_that_is_not_there_is_refused_with_the_words_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(TopologyRefused, match="embedded, zone, stretch"):
        load_topology(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("kind", Kind)
def test_a_word_stands_for_a_topology_on_this_machine(kind: Kind) -> None:
    topology = load_topology(kind.value)
    assert topology.fleet.kind is kind
    assert topology.local
    assert {policy.source for policy in topology.policies} == (set(topology.names) if kind is Kind.STRETCH else set())


def test_who_may_stand_in_follows_from_residency() -> None:
    regions = '[regions.eu]\nresidency = "eu"\nallowed = ["us"]\n[regions.us]\n[regions.ap]\nresidency = "eu"\n'
    topology = parse_topology(FLEET + regions)
    assert topology.may_stand_in("eu", "us")
    assert topology.may_stand_in("ap", "eu")
    assert not topology.may_stand_in("ap", "us")
    assert topology.may_stand_in("us", "ap")


def test_a_majority_is_what_a_policy_waits_for_where_it_says_nothing() -> None:
    declared = declared_fleet(load_topology("stretch"))
    assert all(one.conditions["suspected_by"] == 2 for one in declared.policies)


def test_clients_of_real_machines_try_their_own_regions_server_first() -> None:
    regions = "".join(
        f'[regions.{name}]\nnats = "nats://{name}:4222"\ndatabase = "postgresql://{name}/r"\n'
        for name in ("eu", "us", "ap")
    )
    topology = parse_topology(FLEET + regions)
    servers = told_servers(Settings(topology="t", region="us"), topology)
    assert servers.nats == "nats://us:4222,nats://eu:4222,nats://ap:4222"
    assert servers.database == "postgresql://us/r"
    assert servers.replicas == 3
    with pytest.raises(TopologyRefused, match="known_regions"):
        told_servers(Settings(topology="t", region="mars"), topology)
