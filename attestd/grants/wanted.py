"""From the wants of a refused caller to the object of a grant: exactly these names, nothing that they could stand for.

``METHODS`` says in which list of the object the name of each method belongs. A method that is not in the table (a
connection, a list, a ping) asks for nothing by name.
"""

from __future__ import annotations

from collections.abc import Iterable

from attestd.grants.globs import literal
from attestd.grants.model import Object, Want

METHODS: dict[str, str] = {
    "tools/call": "tools",
    "resources/read": "resources",
    "resources/subscribe": "resources",
    "resources/unsubscribe": "resources",
    "subscriptions/listen": "resources",
    "prompts/get": "prompts",
}
ASKED_METHODS: dict[str, str] = {
    "sampling": "sampling/createMessage",
    "elicitation": "elicitation/create",
    "roots": "roots/list",
}
"""Requests of the server to the client, by the word that people use."""
NAMELESS = frozenset(
    {
        "initialize",
        "server/discover",
        "ping",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
    }
)
"""Methods that ask for no more than a connection."""
COMPLETE = "completion/complete"

ONLY_CONNECTED = Object(server="", tools=("*",), resources=("*",), prompts=("*",))
"""What is granted where only a connection was wanted."""


def wanted(wants: Iterable[Want]) -> Object | None:
    """The object of these wants, its server left empty.

    ``ONLY_CONNECTED`` itself if they asked for no more than a connection; None if nothing of them can be named.
    """
    lists: dict[str, list[str]] = {"tools": [], "resources": [], "prompts": [], "server_requests": []}
    connected = False
    for want in wants:
        if want.method in NAMELESS:
            connected = True
        elif want.method in ASKED_METHODS.values():
            lists["server_requests"].append(want.method)
        elif want.name:
            for kind in _kinds(want):
                lists[kind].append(literal(want.name))
    if not any(lists.values()):
        return ONLY_CONNECTED if connected else None
    return Object(
        server="",
        tools=tuple(dict.fromkeys(lists["tools"])),
        resources=tuple(dict.fromkeys(lists["resources"])),
        prompts=tuple(dict.fromkeys(lists["prompts"])),
        server_requests=tuple(dict.fromkeys(lists["server_requests"])),
    )


def _kinds(want: Want) -> tuple[str, ...]:
    if want.method == COMPLETE:
        # a completion refers to a prompt or to a resource; a name without a scheme can only be a prompt's
        return ("prompts", "resources") if ":" in want.name else ("prompts",)
    kind = METHODS.get(want.method)
    return () if kind is None else (kind,)
