"""What a drill is asked for, and the topology that it runs on."""

import random
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final


class Scenario(StrEnum):
    """What is done to a region."""

    REGION_LOSS = "region-loss"
    """SIGKILL of everything in it; in every second round its disk is deleted too"""
    LINK_CUT = "link-cut"
    """it is cut off: in turn both ways, outwards, inwards"""
    SLOW_REGION = "slow-region"
    """what goes in and out of it comes late"""
    DISK_WIPED = "disk-wiped"
    """SIGKILL, its disk is deleted, and it starts at once"""
    ROLLING_RESTART = "rolling-restart"
    """each region is stopped in order and started, one after the other"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`seconds`: how long a fault lasts that ends by itself. `topology`: a file, or one of the drill's own."""

    scenario: Scenario
    topology: Path | None = None
    seconds: float = 10.0
    warm_s: float = 3.0
    seed: int = 1
    rounds: int = 1
    events_per_s: float = 100.0
    tasks_per_s: float = 0.5
    steps: int = 4
    step_s: float = 0.5
    concurrency: int = 4
    delay_s: float = 0.15
    jitter_s: float = 0.05

    def chance(self, *about: object) -> random.Random:
        return random.Random(f"{self.seed} {self.scenario} {about}")


QUEUE: Final = "drill"
OWN_TOPOLOGY: Final = """\
[fleet]
kind = "stretch"
max_failovers = 1000  # as many as it has rounds
[regions.eu]
[regions.us]
[regions.ap]
[[queues]]
name = "drill"
primary = "eu"
replicas = ["us", "ap"]
[[policies]]
name = "eu-lost"
source = "eu"
fallbacks = ["us", "ap"]
[[policies]]
name = "us-lost"
source = "us"
fallbacks = ["eu", "ap"]
[[policies]]
name = "ap-lost"
source = "ap"
fallbacks = ["us", "eu"]
"""

LONGEST_RECORD_S: Final = 0.25
RTO_LOG_S: Final = 10.0
RTO_TASKS_S: Final = 30.0
RTO_QUERIES_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What was done in a round; times are of the machine's monotonic clock, `ended_s` when it was over."""

    region: str
    what: str
    began_s: float
    ended_s: float
    wiped: bool = False
    lost: bool = False
    """The region was gone, so that others had to take over."""
    cut_off: bool = False
