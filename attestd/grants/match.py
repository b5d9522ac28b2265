"""Which grants a caller holds on one server, and why the others do not count.

Rules. Level 0 and orphans hold nothing. A grant of another uid, another server or another program is not the caller's
and is not mentioned. The clauses of the caller's own grants are tried in the order of ``CLAUSES``; the first that
fails is the grant's cause. A fact that is missing (no package, an unreadable launcher) never satisfies a clause.
Interactive callers, callers through inline code and programs whose code is not known (``durable``) are matched only by
grants that end with their login session at the latest. ``PRECEDENCE`` says which cause a refusal names when several
grants failed.

The check that is not here: whether the grant names the wanted tool. That is decided per request (decision/).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from attestd.appraisal.model import AttestationResult, CallerKind
from attestd.errors import Cause
from attestd.grants.model import Grant

UNREADABLE = "unreadable"
"""The word in ``launched_by`` that accepts a launcher whose program could not be read."""
BOUND_KINDS = frozenset({"once", "process", "session", "until"})
"""Lifetimes that an interactive or inline caller may be matched by; once and until only with the session as their
key."""

OVER = "the grant has expired"
THROUGH_INLINE = "the call came through inline code, which the grant does not accept"
PLAIN = frozenset({OVER, THROUGH_INLINE})
"""Details that say no more than their cause."""

CUT = ("...", "…")
"""How the collector ends a value that it shortened."""
LIFETIMES = BOUND_KINDS | {"binary", "standing"}

PRECEDENCE: tuple[Cause, ...] = (
    Cause.UNATTESTABLE,
    Cause.LAUNCHER,
    Cause.INLINE,
    Cause.SEARCH_PATH,
    Cause.LEVEL_TOO_LOW,
    Cause.EXPIRED,
    Cause.NO_GRANT,
)
"""Most telling first: who launched the program outweighs how sure we are, which outweighs that a grant has run out."""


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """One of the caller's own grants that does not hold now."""

    grant: Grant
    cause: Cause
    detail: str

    @property
    def grant_id(self) -> str:
        """The grant's id."""
        return self.grant.id


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's own grants on one server. ``linked`` empty: nothing is permitted by a grant."""

    linked: tuple[Grant, ...] = ()
    rejected: tuple[Rejected, ...] = ()


Clause = Callable[[AttestationResult, Grant, int], tuple[Cause, str] | None]


def match(result: AttestationResult, server: str, grants: Iterable[Grant], now_ns: int) -> Match:
    """Sort ``grants`` into those that hold for this caller on this server now and those that nearly do."""
    linked: list[Grant] = []
    rejected: list[Rejected] = []
    for grant in grants:
        if not owns(result, grant) or grant.object.server != server:
            continue
        failed = first_failure(result, grant, now_ns)
        if failed is None:
            linked.append(grant)
        else:
            rejected.append(Rejected(grant=grant, cause=failed[0], detail=failed[1]))
    return Match(linked=tuple(linked), rejected=tuple(sorted(rejected, key=_rank)))


def owns(result: AttestationResult, grant: Grant) -> bool:
    """Whether the grant names this uid and this program."""
    subject = grant.subject
    if subject.uid != result.uid or not subject.program:
        return False
    if subject.kind != ("interactive" if result.kind is CallerKind.INTERACTIVE else "program"):
        return False
    match subject.program_kind:
        case "exact":
            return subject.program == result.program
        case "package":
            return subject.program == package_name(result.package)
        case "lineage":
            # a lineage is a place and a name; it counts only while a verified package vouches for what lies there
            return bool(result.package) and subject.program == result.lineage
        case _:
            return False


def package_name(package: str) -> str:
    """``npm:@scope/name@1.2.3`` without its version; empty if there is none to take off."""
    name, at, version = package.rpartition("@")
    return name if at and version and not name.endswith(":") and ":" in name else ""


def first_failure(result: AttestationResult, grant: Grant, now_ns: int) -> tuple[Cause, str] | None:
    """The first clause that does not hold, with a detail for people; None if the grant holds."""
    for clause in CLAUSES:
        failed = clause(result, grant, now_ns)
        if failed is not None:
            return failed
    return None


def ended(grant: Grant, now_ns: int) -> str | None:
    """Why the grant is over at ``now_ns`` whoever asks, or None."""
    if grant.revoked_ns is not None:
        return "the grant was used up" if grant.lifetime.kind == "once" else "the grant was revoked"
    if grant.lifetime.kind == "until":
        if grant.lifetime.until_ns is None or now_ns >= grant.lifetime.until_ns:
            return OVER
        if now_ns < grant.created_ns:
            return "the clock is before the time at which the grant was made"
    return None


def covers_launchers(result: AttestationResult, accepted: Iterable[str]) -> str | None:
    """The display of the first launcher that is not accepted, or None."""
    words = frozenset(accepted)
    for launcher in result.launchers:
        if (UNREADABLE if launcher.program is None else launcher.program) not in words:
            return launcher.display
    return None


def _attestable(result: AttestationResult, grant: Grant, now_ns: int) -> tuple[Cause, str] | None:
    del grant, now_ns
    if result.level < 1 or result.kind is CallerKind.ORPHAN:
        return Cause.UNATTESTABLE, "the caller is not attestable (level 0 or orphan)"
    return None


def _launchers(result: AttestationResult, grant: Grant, now_ns: int) -> tuple[Cause, str] | None:
    del now_ns
    stranger = covers_launchers(result, grant.subject.launched_by)
    if stranger is None:
        return None
    return Cause.LAUNCHER, f"launched by {stranger}, which the grant does not name"


def _inline(result: AttestationResult, grant: Grant, now_ns: int) -> tuple[Cause, str] | None:
    del now_ns
    if result.inline and not grant.subject.inline:
        return Cause.INLINE, THROUGH_INLINE
    return None


def _search_paths(result: AttestationResult, grant: Grant, now_ns: int) -> tuple[Cause, str] | None:
    """A search path may lead to other code than was approved; one that was cut short is not known and never matches."""
    del now_ns
    for found in search_paths(result):
        if found not in grant.subject.search_paths or found.endswith(CUT):
            return Cause.SEARCH_PATH, f"started with {found}, which the grant does not name"
    return None


def search_paths(result: AttestationResult) -> tuple[str, ...]:
    """The code search paths that the caller was started with."""
    return tuple(reason.detail for reason in result.reasons if reason.code == "search-path")


def _level(result: AttestationResult, grant: Grant, now_ns: int) -> tuple[Cause, str] | None:
    del now_ns
    if result.level < grant.min_level:
        return Cause.LEVEL_TOO_LOW, f"assurance level {result.level}, the grant needs {grant.min_level}"
    return None


def _lifetime(result: AttestationResult, grant: Grant, now_ns: int) -> tuple[Cause, str] | None:
    over = ended(grant, now_ns)
    if over is not None:
        return Cause.EXPIRED, over
    kind, key = grant.lifetime.kind, grant.lifetime.key
    if kind not in LIFETIMES:
        return Cause.NO_GRANT, "the lifetime of the grant is not known to this version"
    if kind == "binary" and grant.subject.program_kind != "exact":
        return Cause.NO_GRANT, "a grant until the binary changes must name the exact program"
    if kind == "process" and (not key or key != result.instance):
        return Cause.EXPIRED, "the grant was for another process"
    needs_session = kind == "session" or (kind in ("once", "until") and key is not None)
    if needs_session and (not key or key != result.login_session):
        return Cause.EXPIRED, "the grant was for another login session"
    return None


def _durable(result: AttestationResult, grant: Grant, now_ns: int) -> tuple[Cause, str] | None:
    del now_ns
    if result.durable and result.kind is not CallerKind.INTERACTIVE and not result.inline:
        return None
    bound = grant.lifetime.kind in BOUND_KINDS and (grant.lifetime.kind == "process" or grant.lifetime.key is not None)
    cause = Cause.INLINE if result.inline else Cause.NO_GRANT
    return (
        None
        if bound
        else (cause, "the grant outlasts the login session, and this caller cannot be recognised after it")
    )


CLAUSES: tuple[Clause, ...] = (_attestable, _launchers, _inline, _search_paths, _level, _lifetime, _durable)


def _rank(rejected: Rejected) -> tuple[int, str]:
    return PRECEDENCE.index(rejected.cause), rejected.grant.id
