"""docs/reference/methods.md, from the tables of ``wire.methods``."""

from __future__ import annotations

from attestd.wire.methods import (
    CHALLENGED,
    CLIENT_NOTIFICATIONS,
    CLIENT_REQUESTS,
    QUESTIONS,
    REVISIONS,
    SERVER_NOTIFICATIONS,
    SERVER_REQUESTS,
    Finder,
    Method,
)
from docs.generator.markdown import code, page, table

DECIDED_ON = {
    Finder.SERVER: "the server",
    Finder.TOOL: "the tool's name",
    Finder.PROMPT: "the prompt's name",
    Finder.RESOURCE: "the canonical URI",
    Finder.REFERENCE: "the prompt or resource it refers to",
    Finder.FILTER: "every URI, task and list it names",
    Finder.TASK: "the task, which must be this caller's",
    Finder.REQUEST: "the request, which must be outstanding for this caller",
    Finder.PROGRESS: "the token, which must be of an outstanding request",
}


def render() -> str:
    """Return the page."""
    introduction = (
        f"Revisions: {', '.join(REVISIONS)}; the last is the *modern* era, the others are *legacy*. What is not "
        "in these tables does not exist: it is refused with `unknown_method` and never forwarded. *Action* is what "
        "policies and grants decide; `pass` needs no more than the right to connect. A method "
        "that *waits for proof* is served only once it is known that the attested program wrote it "
        "([ADR 7](../adr/0007-position-proof-and-challenge.md))."
    )
    asks = table(
        ("a result of 2026-07-28 asks for", "action"), ((code(name), code(act)) for name, act in QUESTIONS.items())
    )
    return page(
        "How every MCP method is decided",
        "`attestd/wire/methods.py`",
        introduction,
        "## Requests of the client\n\n" + _client(CLIENT_REQUESTS),
        "A shared server refuses "
        + ", ".join(code(row.name) for row in CLIENT_REQUESTS if row.shared_effect)
        + " (`shared_state`). In 2026-07-28 the challenge travels in the result of "
        + ", ".join(code(name) for name in sorted(CHALLENGED))
        + "; other methods that wait are refused with `unproven` and are to be sent again.",
        "## Notifications of the client\n\n" + _client(CLIENT_NOTIFICATIONS),
        "## Requests of the server\n\nRefused unless the caller's grant accepts them (`approve --server-request`).\n\n"
        + _server(SERVER_REQUESTS),
        asks,
        "## Notifications of the server\n\n" + _server(SERVER_NOTIFICATIONS),
    )


def _client(rows: tuple[Method, ...]) -> str:
    head = ("method", "revisions", "action", "decided on", "waits for proof", "list filtered")
    return table(
        head,
        (
            (*_common(row), "yes" if row.effectful else "", code(row.lists.value) if row.lists is not None else "")
            for row in rows
        ),
    )


def _server(rows: tuple[Method, ...]) -> str:
    return table(("method", "revisions", "action", "belongs to"), map(_common, rows))


def _common(row: Method) -> tuple[str, str, str, str]:
    return code(row.name), _revisions(row), code(row.action), DECIDED_ON[row.finder]


def _revisions(row: Method) -> str:
    known = [revision for revision in REVISIONS if revision in row.revisions]
    if known == list(REVISIONS):
        return "all"
    if len(known) == 1:
        return known[0]
    first, last = REVISIONS.index(known[0]), REVISIONS.index(known[-1])
    return f"{known[0]} to {known[-1]}" if last - first + 1 == len(known) else ", ".join(known)
