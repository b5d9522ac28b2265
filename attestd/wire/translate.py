"""One era's words in the other's: capabilities, handshakes, ``_meta``, and the heads of results.

legacy: ``initialize`` once, capabilities of both sides fixed by it. modern: no handshake, each request carries the
revision, capabilities and name of its client, each result says what it is. What one era does not have is left out of
what is *announced* to the other side, so that nobody asks for it; what is asked all the same is refused by the bridge.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from attestd.wire.lookalike import META, META_CLIENT, META_REVISION
from attestd.wire.members import members
from attestd.wire.methods import REVISIONS
from attestd.wire.model import Json, Kind
from attestd.wire.serialise import to_bytes
from attestd.wire.server import ServerMessage

Body = dict[str, Any]

MODERN: Final = REVISIONS[-1]
LEGACY: Final = REVISIONS[-2]
"""The revisions that the bridge speaks itself."""
META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_LEVEL: Final = "io.modelcontextprotocol/logLevel"
META_SERVER: Final = "io.modelcontextprotocol/serverInfo"
ENVELOPE: Final = frozenset({META_REVISION, META_CLIENT, META_CAPABILITIES, META_LEVEL})
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

_ALONE: Final = frozenset({"extensions", "tasks"})
"""Capabilities that mean something else, or nothing, in the other era: tasks are an extension there."""
_CACHED: Final = frozenset(
    {"tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read", "server/discover"}
)
"""Methods whose modern result must say how long it may be kept; what a legacy server said may be kept for no time."""
_MUST_NOT: Final = {-32002: -32602}
"""Error codes of the legacy era that must not be sent in the modern one, with what they became."""


def portable(capabilities: Json) -> Body:
    """The capabilities that both eras have."""
    if type(capabilities) is not dict:
        return {}
    return {key: value for key, value in capabilities.items() if key not in _ALONE}


def meta_of(params: Json) -> Body:
    """``_meta`` of params or of a result; {} if there is none."""
    meta = params.get(META) if type(params) is dict else None
    return meta if type(meta) is dict else {}


def initialize_params(meta: Body, own: Body) -> Body:
    """What we say to a legacy server for a client that says ``meta`` with its requests. own: our clientInfo."""
    info = meta.get(META_CLIENT)
    return {
        "protocolVersion": LEGACY,
        "capabilities": portable(meta.get(META_CAPABILITIES)),
        "clientInfo": info if type(info) is dict else own,
    }


def discovered(initialized: Body) -> Body:
    """The result of server/discover for a server that answered ``initialize`` with this."""
    answer: Body = {
        "resultType": "complete",
        "supportedVersions": [MODERN],
        "capabilities": portable(initialized.get("capabilities")),
        "ttlMs": 0,
        "cacheScope": "private",
    }
    if type(initialized.get("instructions")) is str:
        answer["instructions"] = initialized["instructions"]
    info = initialized.get("serverInfo")
    answer[META] = {**meta_of(initialized), **({META_SERVER: info} if type(info) is dict else {})}
    return answer


def initialized(discovery: Body, wanted: Json) -> Body:
    """The result of initialize for a server that answered ``server/discover`` with this. wanted: by the client."""
    info = meta_of(discovery).get(META_SERVER)
    answer: Body = {
        "protocolVersion": wanted if wanted in REVISIONS[:-1] else LEGACY,
        "capabilities": portable(discovery.get("capabilities")),
        "serverInfo": info if type(info) is dict else {"name": "unknown", "version": "0"},
    }
    if type(discovery.get("instructions")) is str:
        answer["instructions"] = discovery["instructions"]
    return answer


def envelope(initialize: Body, level: str | None) -> Body:
    """The ``_meta`` that every modern request needs, from what the legacy client said in initialize."""
    info = initialize.get("clientInfo")
    answer: Body = {META_REVISION: MODERN, META_CAPABILITIES: portable(initialize.get("capabilities"))}
    if type(info) is dict:
        answer[META_CLIENT] = info
    if level is not None:
        answer[META_LEVEL] = level
    return answer


def is_whole(meta: Body) -> bool:
    """Whether ``_meta`` has what a modern server demands of every request."""
    return meta.get(META_REVISION) == MODERN and type(meta.get(META_CAPABILITIES)) is dict


def probe(meta: Body, own: Body) -> Body:
    """The ``_meta`` of a question of ours, on behalf of a client that sent this one, whatever that lacks."""
    capabilities, info = meta.get(META_CAPABILITIES), meta.get(META_CLIENT)
    return {
        META_REVISION: MODERN,
        META_CAPABILITIES: capabilities if type(capabilities) is dict else {},
        META_CLIENT: info if type(info) is dict else own,
    }


def without_envelope(params: Body) -> Body:
    """Params for a legacy server: without what only the modern era has in ``_meta``."""
    meta = {key: value for key, value in meta_of(params).items() if key not in ENVELOPE}
    rest = {key: value for key, value in params.items() if key != META}
    return {**rest, META: meta} if meta else rest


def complete(message: ServerMessage, method: str) -> ServerMessage:
    """A result of a legacy server as a modern one, its content untouched and not decoded.

    Args:
        message: The result.
        method: What it answers.

    Raises:
        WireError: MALFORMED: it is no object.
    """
    if message.kind is not Kind.RESULT or message.result is None or message.head is None:
        return message
    raw = bytes(message.result)
    added: Body = {"resultType": "complete"}
    if method in _CACHED:
        added |= {"ttlMs": 0, "cacheScope": "private"}
    held = members(raw)
    rest = [to_bytes(key) + b":" + bytes(member.raw) for key, member in held.items() if key not in added]
    first = to_bytes(added)[1:-1]
    result = b"{" + b",".join([first, *rest]) + b"}"
    head = msgspec.structs.replace(message.head, result_type="complete", questions=(), request_state=None)
    return msgspec.structs.replace(message, result=msgspec.Raw(result), head=head)


def modern_error(error: Json) -> Json:
    """An error of a legacy server with a code that the modern era may send."""
    code = error["code"]
    if code in _MUST_NOT:
        return {**error, "code": _MUST_NOT[code]}
    if -32099 <= code <= -32020 or code == -32042:
        data = error.get("data")
        return {**error, "code": -32603, "data": {"legacy_code": code, **({} if data is None else {"data": data})}}
    return error


def speaks_modern(discovery: Json) -> bool:
    """Whether a result of server/discover names the modern revision."""
    versions = discovery.get("supportedVersions") if type(discovery) is dict else None
    return type(versions) is list and MODERN in versions
