"""Messages for the tests of the wire room."""

from __future__ import annotations

import json
from typing import Any

from attestd.errors import Cause
from attestd.wire.classify import classify
from attestd.wire.model import CallRequest, Era, Limits, Message, WireError
from attestd.wire.parse import parse_message

LIMITS = Limits()
REVISION_KEY = "io.modelcontextprotocol/protocolVersion"
MODERN_META = {
    REVISION_KEY: "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "probe", "version": "1.0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
ABSENT: Any = object()


def body(method: str, params: Any = ABSENT, message_id: Any = 7) -> dict[str, Any]:
    """A request, or with ``message_id=ABSENT`` a notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0"}
    if message_id is not ABSENT:
        message["id"] = message_id
    message["method"] = method
    if params is not ABSENT:
        message["params"] = params
    return message


def line(method: str, params: Any = ABSENT, message_id: Any = 7) -> bytes:
    """The same as bytes, compact."""
    return json.dumps(body(method, params, message_id), separators=(",", ":")).encode()


def call(
    method: str,
    params: Any = ABSENT,
    message_id: Any = 7,
    *,
    revision: str | None = None,
    era: Era = Era.UNKNOWN,
    modern: bool = False,
) -> CallRequest:
    """Parse and classify one message."""
    if modern:
        params = {**(params if params is not ABSENT else {}), "_meta": MODERN_META}
    return classify(parsed(line(method, params, message_id)), revision, era)


def parsed(data: bytes) -> Message:
    """Parse with the default limits."""
    return parse_message(data, LIMITS)


def refused(data: bytes, limits: Limits = LIMITS) -> WireError:
    """The error that parsing ends with; a message that parses fails the test."""
    try:
        message = parse_message(data, limits)
    except WireError as error:
        return error
    raise AssertionError(f"parsed, expected a refusal: {message.body!r}")


def refused_call(*args: Any, **keywords: Any) -> WireError:
    """The error that ``call`` ends with."""
    try:
        request = call(*args, **keywords)
    except WireError as error:
        return error
    raise AssertionError(f"classified, expected a refusal: {request!r}")


def cause(data: bytes) -> Cause:
    """Why parsing refuses."""
    return refused(data).cause
