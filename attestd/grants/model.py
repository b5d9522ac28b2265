"""Grants: who may do what, until when. Pure: matching takes the caller and the time as values.

A grant names a workload (program by digest, package or install lineage, how it may have been launched) and an object (a
server's tools, resources, prompts and server requests). Missing evidence never matches; an empty list of objects grants
nothing; ``*`` must be written to mean all.
"""

from __future__ import annotations

import msgspec


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a grant names. Every stated condition must hold."""

    uid: int
    program_kind: str
    """exact | package | lineage"""
    program: str
    """exact: program digest (64 hex). package: ``npm:name``. lineage: the lineage key."""
    launched_by: tuple[str, ...] = ()
    """Launchers accepted between the program and the first EDGE: program digests, or ``unreadable``. Every launcher
    of the caller must be named. Empty: only a clean chain (PASS and EDGE)."""
    inline: bool = False
    """Accept calls that passed through inline code."""
    search_paths: tuple[str, ...] = ()
    """Code search paths (``env PYTHONPATH=/x``) that the program may be started with, as appraisal renders them."""
    kind: str = "program"
    """program | interactive: an interactive caller is matched by its program and login session."""


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """What is granted on one server: exact names or anchored globs (``*`` any run, ``?`` one character).

    A leading ``=`` takes the rest literally, so that a name that itself contains ``*`` or ``?`` can be granted and
    nothing else with it.
    """

    server: str
    tools: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    server_requests: tuple[str, ...] = ()
    """Of sampling/createMessage, elicitation/create, roots/list."""


class Lifetime(msgspec.Struct, frozen=True, kw_only=True):
    """How long. A time-out never makes a grant, it only ends one."""

    kind: str
    """once | process | session | until | binary | standing"""
    until_ns: int | None = None
    key: str | None = None
    """process: instance. session: login session. once and until: the login session, where the caller is interactive
    or came through inline code, because such grants never outlive it."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who was approved, kept so that an update of the same program can be shown as a difference."""

    title: str
    program: str
    """Program digest, 64 hex, whatever kind of program the subject names."""
    chain: str
    level: int
    package: str = ""
    lineage: str = ""
    launchers: tuple[str, ...] = ()
    """Displays of the foreign launchers."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the store."""

    id: str
    subject: Subject
    object: Object
    min_level: int
    lifetime: Lifetime
    created_ns: int
    approved_by: str
    """Display of the approver."""
    how: str
    """root | clean-chain | approver | configuration"""
    origin: str
    """pending code, file or command that made it."""
    display: str
    """The caller's line at the time of approval."""
    hits: int = 0
    last_used_ns: int | None = None
    revoked_ns: int | None = None
    """Also set when a ``once`` grant was used."""
    identity: Identity | None = None


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What a refused caller asked for."""

    method: str
    name: str
    count: int


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A refused caller that waits for a person's decision."""

    code: str
    """Eight characters of a 31-letter alphabet without look-alikes, shown as XXXX-XXXX."""
    uid: int
    program: str
    chain: str
    server: str
    cause: str
    wants: tuple[Want, ...]
    first_ns: int
    last_ns: int
    count: int
    expires_ns: int
    identity: bytes
    """The AttestationResult as JSON (msgspec), so that approval needs no living process."""
    display: str
    runs: str = ""
    """What the program is made of: image | script | module | inline | stdin | unresolved | none. Empty: not known,
    which is treated as the weakest."""
