"""Verdicts. A decision starts at Deny; Permit is something that a function returned."""

from __future__ import annotations

import msgspec

from attestd.errors import Cause


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """The request may be forwarded."""

    policies: tuple[str, ...]
    """Ids of the determining policies and grants, sorted."""
    grants: tuple[str, ...] = ()
    """Ids of the determining grants whose use counts; a ``once`` grant among them is consumed by the caller of the
    decision. Empty for connections and lists, which use nothing up; without ``once`` grants where another permits
    too."""
    cached: bool = False


class Deny(msgspec.Struct, frozen=True, kw_only=True):
    """The request is refused."""

    cause: Cause
    detail: str = ""
    """One clause for a person: which condition failed."""
    plain: bool = False
    """The detail says no more than the cause does: a refusal does not repeat it."""
    policies: tuple[str, ...] = ()
    cached: bool = False


Verdict = Permit | Deny


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions may read of a server."""

    name: str
    transport: str


class ToolFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions may read of a tool.

    From its definition, with the specification's defaults, never from the call.
    """

    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True
    pinned: bool = False


class RequestContext(msgspec.Struct, frozen=True, kw_only=True):
    """The typed context of one request. Raw tool arguments never enter it."""

    protocol_version: str
    transport: str
    hour: int
    weekday: int
    now_ns: int
    args_sha256: str
    args_size: int
    calls_in_session: int
