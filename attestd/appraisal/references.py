"""Reference values: our own programs, which the daemon hashed when it started.

A link is the shim (or the command line tool) when interpreter and wrapper script have the reference digests *and* the
script is the very file of this installation: the wrapper imports the rest of its code from the directory beside it,
so an equal copy elsewhere may be another program. For the same reason no posture is accepted, search paths included,
and no tracer and no foreign mount namespace. On a system installation neither file may be writable by the caller; in
user mode they may be, but the script must then be older than the process.
A link whose digests are the shim's but which fails one of these conditions is not the shim and not an ordinary program
either: a grant for it would be a grant for every caller. The level says so (``relay-refused``, 0).
"""

from __future__ import annotations

import msgspec

from attestd.appraisal.posture import HARMLESS, caps
from attestd.evidence.model import Link


class RelayReference(msgspec.Struct, frozen=True, kw_only=True):
    """One installed program of ours."""

    exe_sha256: str
    """Of the interpreter."""
    script_sha256: str
    """Of the wrapper script."""
    script_path: str
    """Of the wrapper script, absolute and without symbolic links."""


class References(msgspec.Struct, frozen=True, kw_only=True):
    """What this installation consists of."""

    relays: tuple[RelayReference, ...] = ()
    """attestd-connect."""
    cli: tuple[RelayReference, ...] = ()
    """attestctl."""
    user_mode: bool = False


def named(link: Link, references: tuple[RelayReference, ...]) -> RelayReference | None:
    """The reference with the digests of this link, whatever else is wrong with it."""
    if link.exe is None or link.exe.sha256 is None or link.script is None:
        return None
    if link.script.kind not in ("script", "module") or link.script.sha256 is None:
        return None
    for reference in references:
        if (link.exe.sha256, link.script.sha256) == (reference.exe_sha256, reference.script_sha256):
            return reference
    return None


def objection(link: Link, reference: RelayReference, *, user_mode: bool, sandboxed: bool) -> str:
    """Why a link with these digests is not that program of ours, or an empty string."""
    exe, script = link.exe, link.script
    if exe is None or script is None or script.file is None:
        return "unreadable"
    objections = (
        (script.kind != "script", "not run as a script"),
        (script.file.path != reference.script_path, "not the installed file"),
        (exe.memfd or exe.deleted or script.file.memfd or script.file.deleted, "deleted or in memory"),
        (script.younger_than_process, "changed since it was started"),
        (link.tracer_pid != 0, "traced"),
        (sandboxed, "in another mount namespace"),
        (any(cap < HARMLESS for cap, _ in caps(link, member=True)), "started with preloads or search paths"),
        (not user_mode and (exe.writable or script.file.writable), "writable by the caller"),
    )
    return next((text for failed, text in objections if failed), "")
