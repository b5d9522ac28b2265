"""One message to what it asks for: the targets that a decision must permit, every one of them.

| message | decided on |
|---|---|
| tools/call | the tool's name, again on every retry |
| resources/read, subscribe, unsubscribe | the canonical URI |
| subscriptions/listen | every URI, every task id, and the lists whose changes it wants |
| prompts/get | the prompt's name |
| completion/complete | the prompt or resource it refers to |
| tasks/* | the task id |
| anything else that the tables hold | the server as a whole |

The row of a message depends on its method, its kind, the revision that it declares, that of the connection and the
era alone, so it is looked up once; what is refused is not remembered. A tools/call with nothing but the name, the
arguments and what every message of its client says about itself takes a short way: there is nothing else to look for.

Names are the decoded values, compared exactly. Nothing depends on whether the client has said ``initialize`` before:
servers do not insist on it either.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

from attestd.errors import Cause
from attestd.wire.era import (
    claimed,
    client_name,
    declared_revision,
    demand_modern_revision,
    era_of,
    unsupported,
)
from attestd.wire.lookalike import META, META_CLIENT, META_REVISION, META_TASK, STATEMENTS
from attestd.wire.methods import QUESTIONS, Finder, Method, client_method, revision_of
from attestd.wire.model import CallRequest, Era, Json, Kind, Message, Target, WireError
from attestd.wire.uris import INVALID_PARAMS, canonical, is_template, template

NAME_CHARACTERS: Final = 1024
LISTEN_MAX: Final = 1024
"""URIs and task ids in one subscriptions/listen."""

_TOKEN_LIMIT: Final = 2**63
_SERVER_NAME: Final = ""
_LIST_CHANGES: Final = {
    "toolsListChanged": "list_tools",
    "promptsListChanged": "list_prompts",
    "resourcesListChanged": "list_resources",
}
_ARGUMENTS: Final = (dict, type(None))
_ROWS_MAX: Final = 1024
_UNDECLARED: Final = object()
_rows: Final[dict[tuple[str, Kind, Json, str | None, Era], Method]] = {}
"""Rows by method, kind, declared revision, revision and era, found before; filled as they come."""
_PLAIN_CALL: Final = frozenset({"name", "arguments", META})
_TOOL, _FILTER, _REQUEST, _PROGRESS = (
    Finder.TOOL,
    Finder.FILTER,
    Finder.REQUEST,
    Finder.PROGRESS,
)
_FILTER_KEYS: Final = _LIST_CHANGES.keys() | {"resourceSubscriptions", "taskIds"}


def classify(message: Message, revision: str | None, era: Era) -> CallRequest:
    """Say what a client message asks for.

    Args:
        message: A request or a notification.
        revision: The negotiated revision as the server stated it, or None before. A modern message states its own.
        era: What the session knows of the connection.

    Returns:
        The classified message; its targets are never empty.

    Raises:
        WireError: UNKNOWN_METHOD (-32601, or -32022 for a revision that attestd does not speak) or MALFORMED
            (-32602).
    """
    if message.method is None:
        raise WireError(Cause.NOT_OUTSTANDING, "cannot classify a response as a call", request_id=message.id)
    row = _row(message, message.method, revision, era)
    if row.admission:
        return _admission(message, row)
    finder = row.finder
    params = message.params
    if finder is _TOOL and params.keys() <= _PLAIN_CALL:
        meta = params.get(META)
        if meta is None or (type(meta) is dict and meta.keys() <= STATEMENTS):
            return _plain_call(message, row, meta or {})
    targets, task_ids = (_called(message, row), ()) if finder is _TOOL else _targets(message, row)
    state = params.get("requestState")
    if state is not None and type(state) is not str:
        _refuse("requestState is not text", message)
    related, token = _meta(message) if META in params else ((), None)
    declares = META in params or "clientInfo" in params
    return CallRequest(
        message=message,
        method=row.name,
        targets=targets,
        effectful=row.effectful and (finder is not _FILTER or _has_effect(targets, task_ids)),
        task_ids=task_ids + related,
        request_state=state,
        revision=declared_revision(message) if declares else None,
        client_name=client_name(message) if declares else None,
        lists=row.lists,
        cursor=None if row.lists is None else params.get("cursor"),
        retry=state is not None or "inputResponses" in params,
        shared_effect=row.shared_effect,
        cancels=_token(message, "requestId") if finder is _REQUEST else None,
        progress_token=_token(message, "progressToken") if finder is _PROGRESS else token,
    )


def questions(methods: tuple[str, ...]) -> tuple[Target, ...]:
    """The targets of the server requests inside a result.

    Raises:
        WireError: UNKNOWN_METHOD: one of them may not stand there.
    """
    unknown = [method for method in methods if method not in QUESTIONS]
    if unknown:
        raise WireError(Cause.UNKNOWN_METHOD, f"cannot accept the question {unknown[0][:64]!a} inside a result")
    return tuple(_whole(QUESTIONS[method]) for method in methods)


def _row(message: Message, method: str, revision: str | None, era: Era) -> Method:
    """The row of the message. It depends on five things only, and is looked up once."""
    meta = message.params.get(META)
    declared = meta.get(META_REVISION, _UNDECLARED) if type(meta) is dict else _UNDECLARED
    if declared is not _UNDECLARED and type(declared) is not str:
        return _found_row(message, method, revision, era)
    key = (method, message.kind, declared, revision, era)
    row = _rows.get(key)
    if row is None:
        row = _found_row(message, method, revision, era)  # raises for all but the few known methods
        if len(_rows) < _ROWS_MAX:
            _rows[key] = row
    return row


def _found_row(message: Message, method: str, revision: str | None, era: Era) -> Method:
    own = era_of(message)
    known = demand_modern_revision(message) if own is Era.MODERN else revision_of(revision)
    if era is Era.LEGACY and own is Era.MODERN:
        # After initialize the connection is legacy: what looks modern there is decided as legacy, or not at all.
        known = revision_of(revision)
    if revision is not None and known is None and own is not Era.MODERN:
        raise WireError(
            Cause.UNKNOWN_METHOD,
            f"cannot decide a call at protocol version {revision[:32]!a}: attestd does not speak it",
            request_id=message.id,
            rpc_code=INVALID_PARAMS,
        )
    effective = era if era is not Era.UNKNOWN else own
    notification = message.kind is Kind.NOTIFICATION
    if method == "initialize" and effective is Era.MODERN and own is not Era.MODERN and not notification:
        raise unsupported(message, declared_revision(message))
    return client_method(method, notification=notification, revision=known, era=effective, request_id=message.id)


def _admission(message: Message, row: Method) -> CallRequest:
    return CallRequest(
        message=message,
        method=row.name,
        targets=(_whole(row.action),),
        effectful=False,
        admission=True,
        revision=declared_revision(message),
        client_name=client_name(message),
        progress_token=_meta(message)[1],
    )


def _plain_call(message: Message, row: Method, meta: dict[str, Json]) -> CallRequest:
    """A call that says nothing beside its name and arguments but the ``STATEMENTS`` of its client."""
    declared = meta.get(META_REVISION)
    return CallRequest(
        message=message,
        method=row.name,
        targets=_called(message, row),
        effectful=row.effectful,
        revision=declared if type(declared) is str else None,
        client_name=claimed(meta.get(META_CLIENT)),
        shared_effect=row.shared_effect,
        progress_token=_demand_token(meta["progressToken"], "progressToken", message)
        if "progressToken" in meta
        else None,
    )


def _called(message: Message, row: Method) -> tuple[Target, ...]:
    params = message.params
    name = _name(params.get("name"), "params.name", message)
    if type(params.get("arguments")) not in _ARGUMENTS:
        _refuse("params.arguments is not an object", message)
    return (Target(action=row.action, kind="tool", name=name),)


def _targets(message: Message, row: Method) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    params = message.params
    match row.finder:
        case Finder.PROMPT:
            name = _name(params.get("name"), "params.name", message)
            return (Target(action=row.action, kind="prompt", name=name),), ()
        case Finder.RESOURCE:
            uri = canonical(params.get("uri"), message.id)
            return (Target(action=row.action, kind="resource", name=uri),), ()
        case Finder.REFERENCE:
            return (_reference(params.get("ref"), row.action, message),), ()
        case Finder.FILTER:
            return _filter(params.get("notifications"), message)
        case Finder.TASK:
            return (_whole(row.action),), (_name(params.get("taskId"), "params.taskId", message),)
        case _:
            return (_whole(row.action),), ()


def _reference(ref: Json, action: str, message: Message) -> Target:
    if type(ref) is not dict:
        _refuse("params.ref is not an object", message)
    match ref.get("type"):
        case "ref/prompt" if "uri" not in ref:
            return Target(action=action, kind="prompt", name=_name(ref.get("name"), "params.ref.name", message))
        case "ref/resource" if "name" not in ref:
            uri = ref.get("uri")
            if is_template(uri):
                return Target(action=action, kind="template", name=template(uri, message.id))
            return Target(action=action, kind="resource", name=canonical(uri, message.id))
        case _:
            return _refuse("params.ref is neither a ref/prompt with a name nor a ref/resource with a uri", message)


def _filter(value: Json, message: Message) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    if type(value) is not dict or not value.keys() <= _FILTER_KEYS:
        _refuse("params.notifications is not an object of known filters", message)
    flags = [key for key in _LIST_CHANGES if key in value]
    if any(type(value[key]) is not bool for key in flags):
        _refuse("a filter in params.notifications is neither true nor false", message)
    uris = [canonical(uri, message.id) for uri in _strings(value, "resourceSubscriptions", message)]
    tasks = [_name(task, "a task id", message) for task in _strings(value, "taskIds", message)]
    wanted = [_whole(_LIST_CHANGES[key]) for key in flags if value[key]]
    targets = [Target(action="subscribe", kind="resource", name=uri) for uri in dict.fromkeys(uris)]
    return (*targets, *wanted) or (_whole("pass"),), tuple(dict.fromkeys(tasks))


def _strings(value: dict[str, Json], key: str, message: Message) -> list[Json]:
    items: Any = value.get(key, [])
    if type(items) is not list or len(items) > LISTEN_MAX:
        _refuse(f"params.notifications.{key} is not an array of at most {LISTEN_MAX} texts", message)
    return list(items)


def _has_effect(targets: tuple[Target, ...], task_ids: tuple[str, ...]) -> bool:
    """A stream of list changes alone discloses what the lists do, and those wait for no proof."""
    return bool(task_ids) or any(target.kind == "resource" for target in targets)


def _meta(message: Message) -> tuple[tuple[str, ...], str | int | None]:
    """The task that ``_meta`` relates the message to, and the progress token in it."""
    meta = message.params.get(META)
    if meta is None:
        return (), None
    if type(meta) is not dict:
        _refuse("params._meta is not an object", message)
    token = _demand_token(meta["progressToken"], "progressToken", message) if "progressToken" in meta else None
    related = meta.get(META_TASK)
    if related is None:
        return (), token
    if type(related) is not dict:
        _refuse("the related task is not an object", message)
    return (_name(related.get("taskId"), "the related task's id", message),), token


def _token(message: Message, key: str) -> str | int:
    return _demand_token(message.params.get(key), key, message)


def _demand_token(value: Json, key: str, message: Message) -> str | int:
    if type(value) is int and -_TOKEN_LIMIT <= value < _TOKEN_LIMIT:
        return value
    if type(value) is str and len(value) <= NAME_CHARACTERS:
        return value
    return _refuse(f"{key} is neither text nor an integer of 64 bits", message)


def _name(value: Json, where: str, message: Message) -> str:
    if type(value) is str and 0 < len(value) <= NAME_CHARACTERS and value.isprintable():
        return value
    return _refuse(f"{where} is not printable text of 1 to {NAME_CHARACTERS} characters", message)


def _whole(action: str) -> Target:
    return Target(action=action, kind="server", name=_SERVER_NAME)


def _refuse(reason: str, message: Message) -> NoReturn:
    raise WireError(
        Cause.MALFORMED, f"cannot accept {message.method}: {reason}", request_id=message.id, rpc_code=INVALID_PARAMS
    )
