"""Who takes part in the scripted day: regions, tenants, agents, tasks, providers."""

from dataclasses import dataclass

EU, US, AP = "eu", "us", "ap"
REGIONS = (EU, US, AP)
ACME, GLOBEX = "acme", "globex"
FLEET = "agents"
"""All agents of all tenants: what fails over, and what the governor governs."""

ORION, LYRA = "orion", "lyra"
"""Providers of models; they do not exist outside this script."""
MODELS = {ORION: "orion-large", LYRA: "lyra-medium"}
LEDGER = "ledger-api"
"""A tool of globex' agents."""


def provider_in(provider: str, region: str) -> str:
    """The dependency that a breaker protects."""
    return f"{provider}@{region}"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a tenant's agents do: on which queue, which decisions they make, and how these come out."""

    tenant: str
    queue: str
    verb: str
    choices: tuple[str, ...]
    primary: str
    replicas: tuple[str, ...]

    def agent(self, region: str) -> str:
        return f"{self.verb}-agent-{region}"

    def task(self, number: int) -> str:
        return f"{self.verb}-{number}"


REFUNDS = Work(
    tenant=ACME,
    queue="refunds",
    verb="refund",
    choices=("approve", "approve", "approve", "refuse", "ask_a_person"),
    primary=EU,
    replicas=(US, AP),
)
CLAIMS = Work(
    tenant=GLOBEX,
    queue="claims",
    verb="claim",
    choices=("settle", "settle", "refer"),
    primary=EU,
    replicas=(US,),
)
LETTERS = Work(tenant=GLOBEX, queue="letters", verb="letter", choices=("send", "redraft"), primary=US, replicas=(AP,))
WORKS = (REFUNDS, CLAIMS, LETTERS)

INCIDENT = "inc-eu-lost"
FOLLOWED_TASK = "refund-1004"
"""Its moves from owner to owner are shown at the end: the first new owner fails as well."""
FOLLOWED_CALL = "call-in-the-brown-out"
"""Its way is shown at the end: the first provider fails, the second answers."""
