"""Every method of every revision, as literal tables. What is not in them does not exist.

A row says in which revisions a method lives and how it is decided: the action, where in params its targets stand,
whether it has an effect (and so waits for the proof that the attested image wrote it), and which list its result is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from attestd.errors import Cause
from attestd.wire.model import Era, ListKind, WireError

METHOD_NOT_FOUND: Final = -32601
UNSUPPORTED_REVISION: Final = -32022

REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
"""Every revision that attestd speaks, oldest first."""

LEGACY: Final = frozenset(REVISIONS[:4])
"""Those in which a connection is a session."""
_FROM_2025_06: Final = frozenset(REVISIONS[2:4])
_2025_11: Final = frozenset(REVISIONS[3:4])
_MODERN: Final = frozenset(REVISIONS[4:])
_ALL: Final = frozenset(REVISIONS)
_TASKS: Final = _2025_11 | _MODERN

_ALIASES: Final = {"2024-10-07": "2024-11-05"}
"""Revisions that some SDK still offers and that have the methods of another."""


class Finder(StrEnum):
    """Where the targets of a message stand."""

    SERVER = "server"  # the message asks something of the server as a whole
    TOOL = "tool"  # params.name
    PROMPT = "prompt"  # params.name
    RESOURCE = "resource"  # params.uri
    REFERENCE = "reference"  # params.ref: a prompt or a resource
    FILTER = "filter"  # params.notifications: resource URIs, task ids and list changes
    TASK = "task"  # params.taskId
    REQUEST = "request"  # params.requestId
    PROGRESS = "progress"  # params.progressToken


class Method(msgspec.Struct, frozen=True):
    """One row."""

    name: str
    revisions: frozenset[str]
    action: str = "pass"
    """Of the decision; see ``Target.action``."""
    finder: Finder = Finder.SERVER
    effectful: bool = False
    lists: ListKind | None = None
    admission: bool = False
    shared_effect: bool = False


_S, _R = Finder.SERVER, Finder.RESOURCE

CLIENT_REQUESTS: Final = (
    Method("initialize", LEGACY, "connect", _S, admission=True),
    Method("server/discover", _MODERN, "connect", _S, admission=True),
    Method("ping", LEGACY),
    Method("tools/list", _ALL, "list_tools", _S, lists=ListKind.TOOLS),
    Method("tools/call", _ALL, "call_tool", Finder.TOOL, effectful=True),
    Method("resources/list", _ALL, "list_resources", _S, lists=ListKind.RESOURCES),
    Method("resources/templates/list", _ALL, "list_resources", _S, lists=ListKind.TEMPLATES),
    Method("resources/read", _ALL, "read_resource", _R, effectful=True),
    Method("resources/subscribe", LEGACY, "subscribe", _R, effectful=True),
    Method("resources/unsubscribe", LEGACY, "subscribe", _R, effectful=True),
    Method("subscriptions/listen", _MODERN, "subscribe", Finder.FILTER, effectful=True),
    Method("prompts/list", _ALL, "list_prompts", _S, lists=ListKind.PROMPTS),
    Method("prompts/get", _ALL, "get_prompt", Finder.PROMPT, effectful=True),
    Method("completion/complete", _ALL, "complete", Finder.REFERENCE, effectful=True),
    Method("logging/setLevel", LEGACY, effectful=True, shared_effect=True),
    Method("tasks/get", _TASKS, finder=Finder.TASK, effectful=True),
    Method("tasks/result", _2025_11, finder=Finder.TASK, effectful=True),
    Method("tasks/cancel", _TASKS, finder=Finder.TASK, effectful=True),
    Method("tasks/update", _MODERN, finder=Finder.TASK, effectful=True),
    Method("tasks/list", _2025_11, lists=ListKind.TASKS),
)
"""What a client may ask."""

CLIENT_NOTIFICATIONS: Final = (
    Method("notifications/initialized", LEGACY),
    Method("notifications/cancelled", _ALL, finder=Finder.REQUEST),
    Method("notifications/progress", LEGACY, finder=Finder.PROGRESS),
    Method("notifications/roots/list_changed", LEGACY),
    Method("notifications/tasks/status", _2025_11, finder=Finder.TASK),
)
"""What a client may tell. None waits for proof: each only ends or answers something that is outstanding."""

SERVER_REQUESTS: Final = (
    Method("ping", LEGACY),
    Method("roots/list", LEGACY, "list_roots"),
    Method("sampling/createMessage", LEGACY, "create_message"),
    Method("elicitation/create", _FROM_2025_06, "elicit"),
    Method("tasks/get", _2025_11, finder=Finder.TASK),
    Method("tasks/result", _2025_11, finder=Finder.TASK),
    Method("tasks/cancel", _2025_11, finder=Finder.TASK),
    Method("tasks/list", _2025_11, lists=ListKind.TASKS),
)
"""What a server may ask. Revision 2026-07-28 has none: there the questions stand inside results."""

SERVER_NOTIFICATIONS: Final = (
    Method("notifications/cancelled", _ALL, finder=Finder.REQUEST),
    Method("notifications/progress", _ALL, finder=Finder.PROGRESS),
    Method("notifications/message", _ALL),
    Method("notifications/tools/list_changed", _ALL, "list_tools"),
    Method("notifications/resources/list_changed", _ALL, "list_resources"),
    Method("notifications/prompts/list_changed", _ALL, "list_prompts"),
    Method("notifications/resources/updated", _ALL, "subscribe", _R),
    Method("notifications/tasks/status", _2025_11, finder=Finder.TASK),
    Method("notifications/elicitation/complete", _2025_11, "elicit"),
    Method("notifications/subscriptions/acknowledged", _MODERN, finder=Finder.FILTER),
    Method("notifications/tasks", _MODERN, finder=Finder.TASK),
)
"""What a server may tell."""

QUESTIONS: Final = {
    "roots/list": "list_roots",
    "sampling/createMessage": "create_message",
    "elicitation/create": "elicit",
}
"""Server requests that may stand inside a result of 2026-07-28, with their actions."""

CHALLENGED: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""The methods whose result may be ``input_required`` in 2026-07-28. No other method can carry a challenge there."""

_CLIENT: Final = {row.name: row for row in (*CLIENT_REQUESTS, *CLIENT_NOTIFICATIONS)}
_SERVER_REQUEST: Final = {row.name: row for row in SERVER_REQUESTS}
_SERVER_NOTIFICATION: Final = {row.name: row for row in SERVER_NOTIFICATIONS}
_NOTIFICATION_PREFIX: Final = "notifications/"


def revision_of(text: object) -> str | None:
    """The revision whose tables apply to a negotiated or declared version, or None if attestd does not speak it."""
    if type(text) is not str:
        return None
    text = _ALIASES.get(text, text)
    return text if text in _ALL else None


def client_method(
    name: str, *, notification: bool, revision: str | None, era: Era, request_id: str | int | None = None
) -> Method:
    """The row of a client's request or notification.

    Args:
        name: The method.
        notification: Whether the message has no id. A request sent without an id is no method at all.
        revision: A value of ``revision_of``, or None before one is negotiated: every one of the era counts.
        era: Of the connection or the message; UNKNOWN counts as both.
        request_id: For the answer.

    Raises:
        WireError: UNKNOWN_METHOD, with code -32601.
    """
    row = _CLIENT.get(name)
    if row is None or name.startswith(_NOTIFICATION_PREFIX) is not notification or not _lives(row, revision, era):
        raise _unknown("client", name, revision, request_id)
    return row


def client_row(name: str) -> Method | None:
    """The row of a client's method in whatever revision has it."""
    return _CLIENT.get(name)


def server_request(name: str, *, revision: str | None, era: Era) -> Method:
    """The row of a server's request; likewise."""
    row = _SERVER_REQUEST.get(name)
    if row is None or not _lives(row, revision, era):
        raise _unknown("server", name, revision, None)
    return row


def server_notification(name: str, *, revision: str | None, era: Era) -> Method:
    """The row of a server's notification; likewise."""
    row = _SERVER_NOTIFICATION.get(name)
    if row is None or not _lives(row, revision, era):
        raise _unknown("server", name, revision, None)
    return row


def _lives(row: Method, revision: str | None, era: Era) -> bool:
    if revision is not None:
        return revision in row.revisions
    if era is Era.UNKNOWN:
        return True
    return not row.revisions.isdisjoint(_MODERN if era is Era.MODERN else LEGACY)


def _unknown(side: str, name: str, revision: str | None, request_id: str | int | None) -> WireError:
    where = f"revision {revision}" if revision else "any revision so far possible"
    message = f"cannot accept {side} method {name[:64]!a}: {where} does not have it"
    return WireError(Cause.UNKNOWN_METHOD, message, request_id=request_id, rpc_code=METHOD_NOT_FOUND)
