"""How long a grant may last, by what was approved, and the words that a person may use for it.

``BOUNDS`` is the table: the words allowed for each kind of caller, the first being the default. A digest that does not
fix the code (standard input, unresolved, an interpreter without a script) names every program that runs that way, so it
is bound to the one process that was shown. Inline code and interactive callers end with their login session.
"""

from __future__ import annotations

import re

import msgspec

from attestd.appraisal.model import AttestationResult, CallerKind
from attestd.errors import NotPermittedError, UsageError
from attestd.grants.model import Grant, Lifetime
from attestd.grants.pending import FIXED_CODE

DURATION = "duration"
BOUNDS: dict[str, tuple[str, ...]] = {
    "durable": ("binary", "standing", "session", "process", "once", DURATION),
    "session": ("session", "process", "once", DURATION),
    "process": ("process",),
}
WHY: dict[str, str] = {
    "durable": "",
    "session": "the caller is interactive, inline code or came through it, so the grant ends with the login session",
    "process": "the program's digest does not cover the code that it runs, so only this process can be approved",
}
MAX_NS = 24 * 3600 * 1_000_000_000
UNIT_NS = {"m": 60 * 1_000_000_000, "h": 3600 * 1_000_000_000}


def bounded(result: AttestationResult, runs: str, *, inline: bool) -> str:
    """Key of ``BOUNDS`` for this caller."""
    if runs not in FIXED_CODE and runs != "inline":
        return "process"
    if inline or not result.durable or runs == "inline" or result.kind is CallerKind.INTERACTIVE:
        return "session"
    return "durable"


def lifetime(word: str, result: AttestationResult, bound: str, program: str, now_ns: int) -> Lifetime:
    """The lifetime that ``word`` means for this caller (empty: the default).

    Raises UsageError for an unknown word, NotPermittedError for one that this caller cannot have.
    """
    duration = duration_ns(word)
    kind = DURATION if duration is not None else word
    if kind and kind not in BOUNDS["durable"]:
        raise UsageError(
            f"cannot grant for {word!r}: allowed are once, process, session, binary, standing and times such as 15m, 8h"
        )
    if not kind:
        kind = "standing" if bound == "durable" and program != "exact" else BOUNDS[bound][0]
    if kind not in BOUNDS[bound]:
        raise NotPermittedError(
            f"cannot grant for {word!r}: {WHY[bound]}", hint=f"use --for {' or '.join(_shown(bound))}"
        )
    if kind == "binary" and program != "exact":
        raise UsageError("cannot grant until the binary changes by package or lineage", hint="use --program exact")
    key = result.instance if kind == "process" else result.login_session
    if kind in ("process", "session") and not key:
        raise NotPermittedError(f"cannot grant for {kind!r}: the caller has no {kind} that could be recognised again")
    keyed = kind in ("process", "session") or bound == "session"
    return Lifetime(
        kind="until" if kind == DURATION else kind,
        until_ns=None if duration is None else now_ns + duration,
        key=key if keyed else None,
    )


def duration_ns(word: str) -> int | None:
    """``15m``, ``1h``, ``8h`` in nanoseconds; None if the word is not a time. Raises UsageError beyond 24 h."""
    found = re.fullmatch(r"([0-9]{1,4})([mh])", word, re.ASCII)
    if found is None:
        return None
    duration = int(found[1]) * UNIT_NS[found[2]]
    if not 0 < duration <= MAX_NS:
        raise UsageError(f"cannot grant for {word!r}: allowed are 1m to 24h")
    return duration


def renewed(grant: Grant, word: str, now_ns: int) -> Grant:
    """The same grant with a new end. Only grants with an end in time can be renewed. Raises UsageError."""
    duration = duration_ns(word)
    if grant.lifetime.kind != "until" or grant.revoked_ns is not None:
        raise UsageError("cannot renew a grant that does not end at a time", hint="approve the client again")
    if duration is None:
        raise UsageError(f"cannot renew for {word!r}: allowed is a time such as 15m, 1h, 8h")
    return msgspec.structs.replace(grant, lifetime=msgspec.structs.replace(grant.lifetime, until_ns=now_ns + duration))


def _shown(bound: str) -> tuple[str, ...]:
    return tuple("15m|1h|8h" if word == DURATION else word for word in BOUNDS[bound])
