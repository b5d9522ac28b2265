"""Messages of MCP over JSON-RPC as values: what arrived, what it asks for, and what is refused.

A message that is not exactly one well-formed JSON-RPC object never becomes a value: parsing gives a ``Message`` or
raises a ``WireError``. Bytes of a client are never forwarded; every value is serialised again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from attestd.errors import AttestdError, Cause

Json = Any
"""A JSON value as Python has it: dict, list, str, int, float, bool, None."""

REFUSED = -31403
"""JSON-RPC code of every refusal by attestd: outside the reserved range of the specification."""


class Era(StrEnum):
    """legacy: 2024-11-05 to 2025-11-25. modern: 2026-07-28. unknown: nothing has told yet."""

    LEGACY = "legacy"
    MODERN = "modern"
    UNKNOWN = "unknown"


class ListKind(StrEnum):
    """The lists whose results are cut down; the value is the key of the items in the result."""

    TOOLS = "tools"
    RESOURCES = "resources"
    TEMPLATES = "resourceTemplates"
    PROMPTS = "prompts"
    TASKS = "tasks"


class Kind(StrEnum):
    """The four shapes of a JSON-RPC message."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESULT = "result"
    ERROR = "error"


class WireError(AttestdError):
    """Their bytes are not a message. Carries what is needed to answer."""

    code = "malformed"

    def __init__(
        self,
        cause: Cause,
        message: str,
        *,
        request_id: str | int | None = None,
        rpc_code: int = -32600,
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.request_id = request_id
        self.rpc_code = rpc_code
        self.data = data
        """What the specification wants beside the code, for example the supported revisions of -32022."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One parsed message. ``body`` is the whole object, key order kept; it is never mutated."""

    kind: Kind
    id: str | int | None
    method: str | None
    params: Json
    """The params object, or {} if absent."""
    body: dict[str, Json]
    encoded: bytes | None = None
    """The compact serialisation of ``body`` without a line end, when parsing already made it."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a message asks for, as the decision names it."""

    action: str
    """connect call_tool read_resource subscribe get_prompt complete list_tools list_resources list_prompts
    create_message elicit list_roots, or ``pass`` for what needs only admission (ping, notifications)."""
    kind: str
    """tool | resource | template | prompt | task | server. A template is a URI with {variables}."""
    name: str
    """Tool or prompt name, canonical URI, or empty for the server."""


class CallRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A classified client message."""

    message: Message
    method: str
    targets: tuple[Target, ...]
    """Every one must be permitted. Never empty."""
    effectful: bool
    """Served only when it is proven that the attested image wrote it (docs/adr/0007)."""
    admission: bool = False
    """initialize and server/discover: decided as ``connect``."""
    task_ids: tuple[str, ...] = ()
    """Tasks that the message names; each must belong to the caller."""
    request_state: str | None = None
    """The opaque state of a modern retry (inputResponses)."""
    revision: str | None = None
    """Protocol version that the message itself declares (initialize params or modern _meta)."""
    client_name: str | None = None
    """clientInfo name and version as declared: a claim."""
    lists: ListKind | None = None
    """Its result is a list that is filtered to what the caller may use."""
    cursor: Json = None
    """Of a list: where its next page begins, as the client gives it."""
    retry: bool = False
    """Carries inputResponses or requestState: decided again like the first call."""
    shared_effect: bool = False
    """Would change a shared server for its other callers too (logging/setLevel)."""
    cancels: str | int | None = None
    """notifications/cancelled: the request, which must be outstanding for this caller."""
    progress_token: str | int | None = None
    """notifications/progress: the token, which must be of an outstanding server request. On a request: the token that
    the server may answer with."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one session; all are configuration."""

    message_bytes: int = 16 * 1024 * 1024
    depth: int = 64
    """Nesting of arrays and objects, the envelope included."""
    values: int = 250_000
    """JSON values in one message; bounds the memory and time that a small message can cost."""
    batch: int = 100
    """Messages in one batch of 2025-03-26."""
    open_requests: int = 256
    held_bytes: int = 1024 * 1024
    """Bytes of messages that wait for the proof (docs/adr/0007)."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What the client is told."""

    cause: Cause
    text: str
    retry: bool
    server: str
    method: str
    name: str
    decision: str
    code: str | None = None
    """Approval code."""
    program: str = ""
    level: int = 0
    display: str = ""
