"""The attestation result: who is accountable, how sure that is, and why."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class LinkClass(StrEnum):
    """What a link is, by verified identity (``membership``)."""

    RELAY = "relay"
    PASS = "pass"  # noqa: S105 - a class name, not a password
    HOST = "host"
    EDGE = "edge"
    APP = "app"
    UNREADABLE = "unreadable"


class CallerKind(StrEnum):
    """Who the caller is."""

    PROGRAM = "program"
    INTERACTIVE = "interactive"
    ORPHAN = "orphan"


class Reason(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One cap on the level, or one remark (cap 4)."""

    cap: int
    code: str
    detail: str = ""


class Launcher(msgspec.Struct, frozen=True, kw_only=True):
    """A link between the accountable client and the first EDGE that is neither PASS, EDGE nor the same code."""

    program: str | None
    """Program digest, hex; None if unreadable."""
    display: str
    build_step: bool = False


class AttestationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What appraisal says of one caller."""

    kind: CallerKind
    accountable: int
    """Index into the evidence's chain."""
    classes: tuple[LinkClass, ...]
    """One per link of the chain."""
    uid: int
    """The weaker identity where real, effective and saved uid differ: the real uid."""
    program: str
    """Program digest, 64 hex."""
    chain: str
    """Chain digest, 64 hex."""
    instance: str
    """<boot id>/<pidfs inode, or pid-start>/<image counter>"""
    spiffe_id: str
    level: int
    """0..4"""
    recorded: bool
    reasons: tuple[Reason, ...]
    """Sorted by cap, then code."""
    inline: bool
    """The call passed through inline code (``sh -c``) that is not exactly the shim's own command line."""
    launchers: tuple[Launcher, ...]
    login_session: str
    """Key of the login session: boot id and instance of the first EDGE, or of the session leader."""
    tty: str | None
    package: str
    """``npm:@anthropic-ai/claude-code@2.1.328`` or empty; verified origins only."""
    lineage: str
    """Key of the install lineage for updates: origin kind and name plus install root, or empty."""
    title: str
    """Short name of the program, for people: ``Claude Code 2.1.328`` or ``client.py``."""
    display: str
    """The fixed line for people (``render``)."""
    durable: bool = False
    """A grant for this program may outlive the process: the code is known and is neither inline, standard input, a bare
    interpreter nor a person at a shell. Where it is False only once, process and session lifetimes may match."""
    terminal: bool = False
    """The first EDGE is a readable, verified terminal program (terminal emulator, multiplexer, ssh or console
    login)."""
