"""Whether acknowledged events are on disks: asked here, asked of the service's prober, and who could answer for it."""

import asyncio

from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from relight.engine.doctor.models import Finding, fail, inapplicable, ok, warn
from relight.engine.doctor.patient import Patient
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.engine.proving.asking import Attestations
from relight.engine.proving.models import Attestation
from relight.engine.proving.questions import QUESTION

REFUSED_WITHIN_S = 0.1
"""The server refuses a subscription beside what it answers."""
BY_SYSTEM = "RELIGHT_NATS_SYSTEM_URL (a login of the system account)"


async def fsync(patient: Patient) -> Finding:
    try:
        await patient.nats.jetstream(timeout=REQUEST_TIMEOUT_S).stream_info(STREAM)
    except NotFoundError:
        return inapplicable(f"stream {STREAM} is not declared yet")
    told = await Attestations(patient.nats, ttl_s=patient.settings.proof_ttl_s).attest()
    ours = await _asked(patient)
    if ours is None and told.prober is None:
        return warn(
            f"nobody can be asked, so nothing is ever called replicated: {'; '.join(told.faults)}",
            f"give the service {BY_SYSTEM}, or RELIGHT_NATS_MONITOR_URLS of all replicas' servers, as in"
            " http://host:8222",
        )
    for by, found in (("asked here", ours), (f"says {told.prober}", told if told.prober else None)):
        if found is not None and not found.proven:
            return fail(f"{'; '.join(found.faults)} ({by})", "correct that: nothing is called replicated until then")
    said = [f"{_told(ours, 'here')}"] if ours is not None else []
    said += [_told(told, f"by {told.prober}")] if told.prober else ["no service's prober answers others yet"]
    said.append(await _trusted(patient))
    if absent := (ours or told).absent:
        return warn("; ".join(said), f"bring back {', '.join(absent)}: acknowledged events stand on the others alone")
    return ok("; ".join(said))


async def _asked(patient: Patient) -> Attestation | None:
    prober = patient.openers.prober(patient.nats, patient.servers)
    if prober is None:
        return None
    try:
        return await prober.attest()
    finally:
        await prober.close()


def _told(found: Attestation, by: str) -> str:
    servers = ", ".join(map(str, found.servers))
    since = f", the same for {found.unchanged_s:.0f} s" if found.prober else ""
    return f"proven {by} ({found.source}) for {servers}{since}"


async def _trusted(patient: Patient) -> str:
    """A login that may listen for recorders' questions could answer them."""

    async def unheard(_: Msg) -> None:
        """The prober's to answer."""

    client, before = patient.nats, patient.nats.last_error
    listening = await client.subscribe(QUESTION, cb=unheard)
    try:
        await client.flush(timeout=int(REQUEST_TIMEOUT_S))
        await asyncio.sleep(REFUSED_WITHIN_S)
    finally:
        await listening.unsubscribe()
    refused = client.last_error is not before and "permissions violation" in str(client.last_error).lower()
    if refused:
        return "this login cannot answer in a prober's place"
    return f"this login may listen on {QUESTION}: what a prober says is as trustworthy as everybody who has it"
