"""What MCP asks of HTTP headers: who may ask at all, what a body is, and what the headers of 2026-07-28 must say.

1. ``Host`` and ``Origin`` come first: a page of a rebinding site has one of them that is not ours.
2. A body is ``application/json`` without parameters; there is no character set to choose.
3. In 2026-07-28 the routing headers repeat what the body says. The body decides; a header that is missing, that is
   there twice or that says something else is refused with -32020.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from attestd.errors import Cause
from attestd.wire.era import declared_revision
from attestd.wire.http_request import HttpRefusal, RequestHead
from attestd.wire.http_response import EVENTS, JSON
from attestd.wire.methods import LEGACY, METHOD_NOT_FOUND, REVISIONS, UNSUPPORTED_REVISION, revision_of
from attestd.wire.model import Kind, Message, WireError
from attestd.wire.parse import INVALID_REQUEST, PARSE_ERROR
from attestd.wire.repeated import NAMED, decoded
from attestd.wire.uris import INVALID_PARAMS

HEADER_MISMATCH: Final = -32020
SESSION: Final = "mcp-session-id"
LAST_EVENT: Final = "last-event-id"
VERSION: Final = "mcp-protocol-version"
METHOD: Final = "mcp-method"
NAME: Final = "mcp-name"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_EITHER: Final = (f"{JSON}, {EVENTS}",)
"""What ``Accept`` says where the client takes either."""
_TOKEN: Final = re.compile(r"[!-~]{1,256}\Z")
STATUS: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    METHOD_NOT_FOUND: 404,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    -32021: 400,
    UNSUPPORTED_REVISION: 400,
}
"""HTTP status of a JSON-RPC error in 2026-07-28, where it is not 200."""


def own_hosts(port: int) -> frozenset[str]:
    """What ``Host`` may say on our loopback port."""
    names = {f"{name}:{port}" for name in _LOOPBACK}
    return frozenset(names | set(_LOOPBACK)) if port == 80 else frozenset(names)


def demand_own(head: RequestHead, hosts: frozenset[str] | None, origins: Iterable[str]) -> None:
    """Rule 1. ``hosts`` None: a Unix socket, which no page can reach by any name. Raises HttpRefusal(403)."""
    host = head.header("host") or ""
    if hosts is not None and host.lower() not in hosts:
        raise HttpRefusal(403, f"attestd refused the request: Host {host[:64]!a} is not this service")
    if "origin" in head.headers:
        own = {f"http://{name}" for name in hosts or ()}
        origin = head.header("origin") or ""
        if origin.lower() not in own and origin not in origins:
            raise HttpRefusal(403, f"attestd refused the request: Origin {origin[:64]!a} may not use this service")


def demand_json(head: RequestHead) -> None:
    """Rule 2. Raises HttpRefusal(415)."""
    found = head.header("content-type") or ""
    if found.lower() != JSON:
        raise HttpRefusal(415, f"cannot accept the body: got content type {found[:64]!a}, expected {JSON}")


def accepted(head: RequestHead) -> tuple[bool, bool]:
    """Whether the client takes JSON, and whether it takes events. Without ``Accept`` it takes either."""
    given = head.headers.get("accept", ())
    if given == _EITHER:  # as the specification has it, and most clients say it
        return True, True
    parts = ",".join(given).split(",")
    ranges = {part.partition(";")[0].strip().lower() for part in parts} - {""}
    if not ranges or "*/*" in ranges:
        return True, True
    return (
        JSON in ranges or "application/*" in ranges,
        EVENTS in ranges or "text/*" in ranges,
    )


def demand_token(head: RequestHead, name: str) -> str | None:
    """A header that names something of ours; None if it is missing. Raises HttpRefusal(400)."""
    value = head.header(name)
    if value is not None and not _TOKEN.match(value):
        raise HttpRefusal(400, f"cannot accept the request: {name} is not a name of ours")
    return value


def is_modern(head: RequestHead) -> bool:
    """Whether the headers declare an era that is not legacy: any version that is not one of the old ones."""
    return not LEGACY.issuperset(map(revision_of, head.headers.get(VERSION, ())))


class Routing(msgspec.Struct, frozen=True):
    """What the routing headers of one head say, decoded; None where that is not a single text, or not to be decoded."""

    version: str | None
    """Also None if attestd does not speak it."""
    method: str | None
    name: str | None

    def agrees(self, message: Message) -> bool:
        """Whether it is known at a glance that ``demand_headers`` has nothing to say; else it has the word."""
        key = NAMED.get(message.method or "")
        return (
            self.version is not None
            and self.version == declared_revision(message)
            and self.method is not None
            and self.method == message.method
            and (key is None or (self.name is not None and self.name == message.params.get(key)))
        )


def routing(head: RequestHead) -> Routing:
    """What the routing headers say; where one of them stands twice, nothing."""
    versions, methods, names = (head.headers.get(name, ()) for name in (VERSION, METHOD, NAME))
    if len(versions) > 1 or len(methods) > 1 or len(names) > 1:
        return Routing(None, None, None)
    version = versions[0] if versions and revision_of(versions[0]) is not None else None
    return Routing(version, decoded(methods[0]) if methods else None, decoded(names[0]) if names else None)


def demand_headers(head: RequestHead, message: Message) -> None:
    """Rule 3 for one message that its headers or its body declare modern.

    Raises:
        WireError: With -32020, or -32022 for a version that attestd does not speak.
    """
    headers = head.headers
    versions, methods, names = headers.get(VERSION, ()), headers.get(METHOD, ()), headers.get(NAME, ())
    if len(versions) > 1 or len(methods) > 1 or len(names) > 1:
        name = next(name for name in (VERSION, METHOD, NAME) if len(headers.get(name, ())) > 1)
        raise _mismatch(message, f"{name} is there {len(headers[name])} times")
    version, body = versions[0] if versions else None, declared_revision(message)
    if message.kind is Kind.REQUEST and body is None:
        raise WireError(
            Cause.MALFORMED,
            "cannot accept the request: params._meta lacks the protocol version",
            request_id=message.id,
            rpc_code=INVALID_PARAMS,
        )
    if version is None or (body is not None and body != version):
        raise _mismatch(message, f"{VERSION} says {version!a:.40}, the body {body!a:.40}")
    if revision_of(version) is None:
        raise WireError(
            Cause.UNKNOWN_METHOD,
            f"cannot accept protocol version {version[:32]!a}: expected {REVISIONS[-1]}",
            request_id=message.id,
            rpc_code=UNSUPPORTED_REVISION,
            data={"supported": [REVISIONS[-1]], "requested": version[:32]},
        )
    _demand_same(message, METHOD, methods, message.method)
    key = NAMED.get(message.method or "")
    if key is not None and key in message.params:
        _demand_same(message, NAME, names, message.params[key])


def _demand_same(message: Message, name: str, values: tuple[str, ...], expected: Any) -> None:
    if not values:
        raise _mismatch(message, f"{name} is missing")
    value = values[0]
    plain = decoded(value)
    if plain is None or type(expected) is not str or plain != expected:
        raise _mismatch(message, f"{name} says {value[:64]!a}, the body says something else")


def _mismatch(message: Message, why: str) -> WireError:
    return WireError(
        Cause.MALFORMED,
        f"cannot accept the request: headers and body disagree: {why}",
        request_id=message.id,
        rpc_code=HEADER_MISMATCH,
    )
