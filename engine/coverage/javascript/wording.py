"""Says why a place counts as guarded or not, and lists what that was decided by."""

from __future__ import annotations

from relight.engine.coverage.javascript.circumstances import name_of_function
from relight.engine.coverage.javascript.sites import Place
from relight.engine.coverage.javascript.tree import CLASSES, FUNCTIONS, Node
from relight.engine.coverage.javascript.values import Client, Family
from relight.engine.coverage.models import Evidence, Guarded

Judgement = tuple[Guarded, str, tuple[Evidence, ...]]


def judged_call(place: Place) -> Judgement:
    """A call is guarded if every client that may be called there is."""
    here = _evidence(place.node, f"{place.what} is called")
    if place.wrapper is not None:
        return Guarded.YES, f"it stands inside {place.wrapper}, which guarded_by names", (here,)
    if place.unresolved:
        return Guarded.UNKNOWN, "where its client comes from is not among the files that were read", (here,)
    clients = {client for client in place.clients if not client.of_type} or place.clients
    raw = _first(clients, Guarded.NO)
    if raw is not None:
        others = ", on one of the ways that lead here" if len({client.guarded for client in clients}) > 1 else ""
        return Guarded.NO, _why_not(raw, place.node) + others, (here, *_made(raw))
    if (unknown := _first(clients, Guarded.UNKNOWN)) is not None:
        why = f"its client is known by the type {unknown.note} alone, and nothing among the files hands one in"
        return Guarded.UNKNOWN, why, (here,)
    guarded = _first(clients, Guarded.YES)
    assert guarded is not None
    return Guarded.YES, f"its client came through {guarded.note}, which guarded_by names", (here, *_made(guarded))


def judged_client(place: Place, wrapped_by: str | None, raw_call: Node | None) -> Judgement:
    """A client is guarded if it goes into a wrapper, and nothing calls it as it was before."""
    here = _evidence(place.node, f"{place.what} is constructed")
    [client] = place.clients
    if place.wrapper is not None:
        return Guarded.YES, f"it is constructed inside {place.wrapper}, which guarded_by names", (here,)
    if client.guarded is Guarded.YES:
        return Guarded.YES, f"its class came through {client.note}, which guarded_by names", (here,)
    if wrapped_by is None:
        return Guarded.NO, "it is handed to nothing that guarded_by names", (here,)
    if raw_call is not None:
        why = f"it is handed to {wrapped_by}, and called without it at {raw_call.tree.path}:{raw_call.line}"
        return Guarded.NO, why, (here, _evidence(raw_call, "is called unguarded"))
    return Guarded.YES, f"it is handed to {wrapped_by}, which guarded_by names", (here,)


def within(node: Node) -> str | None:
    """The function or method around a node, with its class."""
    for above in node.above():
        if above.kind in FUNCTIONS and (name := name_of_function(above)) is not None:
            owner = next((each for each in above.above() if each.kind in CLASSES or each.kind in FUNCTIONS), None)
            if owner is not None and owner.kind in CLASSES and (owning := name_of_function(owner)) is not None:
                return f"{owning}.{name}"
            return name
    return None


def _why_not(client: Client, called: Node) -> str:
    match client.family:
        case Family.SDK if client.through:
            return f"its client came through {client.through}, which guarded_by does not name"
        case Family.SDK if client.note:
            return f"its client is {client.note}, which is not guarded"
        case Family.SDK:
            site = client.site
            elsewhere = site is not None and site.tree is not called.tree
            made = "" if site is None else f", made {f'at {site.tree.path}:' if elsewhere else 'on line '}{site.line},"
            return f"nothing that guarded_by names lies between its client{made} and this call"
        case Family.HTTP:
            return "it calls Anthropic's API over plain HTTP, and no client is there to guard"
        case _:
            return f"it calls Anthropic through {client.family}, and no client of Anthropic's is there to guard"


def _made(client: Client) -> tuple[Evidence, ...]:
    return () if client.site is None else (_evidence(client.site, "the client is constructed"),)


def _first(clients: set[Client] | frozenset[Client], guarded: Guarded) -> Client | None:
    """The one that was constructed first, so that a reason does not change from run to run."""
    of_these = [client for client in clients if client.guarded is guarded]
    return min(of_these, key=_order, default=None)


def _order(client: Client) -> tuple[str, int, str, str]:
    if client.site is None:
        return "", 0, client.note, client.through
    return client.site.tree.path, client.site.start, client.note, client.through


def _evidence(node: Node, note: str) -> Evidence:
    return Evidence(node.tree.path, node.line, note)
