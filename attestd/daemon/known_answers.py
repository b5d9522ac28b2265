"""Questions whose answers are known: what the shipped policy alone must say, whatever this host's policies say.

The self-check asks them of an engine of its own. A policy of the host may permit everybody, or forbid by the hour, and
be right; so only here a wrong permit and a wrong refusal can be told from a right one. The caller is an ordinary
program of level 1, whatever this process looks like.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from attestd.appraisal.model import AttestationResult, CallerKind
from attestd.errors import Cause
from attestd.evidence.model import Evidence
from attestd.grants.model import Grant, Lifetime, Object, Subject

LEVEL = 1
PROGRAM = 64 * "0"
HOUR_NS = 3_600_000_000_000


class Known(NamedTuple):
    """One question. Its grants are for its caller and server; ``cause`` None: it is forwarded."""

    what: str
    cause: Cause | None
    tools: tuple[str, ...] = ()
    """What the grant names; empty: there is no grant."""
    min_level: int = LEVEL
    ended: bool = False


KNOWN = (
    Known("a caller without a grant", Cause.NO_GRANT),
    Known("a call that a grant names", None, ("*",)),
    Known("a call that a grant does not name", Cause.OUT_OF_SCOPE, ("another",)),
    Known("a caller below the level of its grant", Cause.LEVEL_TOO_LOW, ("*",), LEVEL + 1),
    Known("a caller whose grant has run out", Cause.EXPIRED, ("*",), LEVEL, ended=True),
)


def ordinary(evidence: Evidence, result: AttestationResult) -> tuple[Evidence, AttestationResult]:
    """This process as the caller of these questions: alone, at level 1, with nothing that would speak against it."""
    process = msgspec.structs.replace(evidence.chain[0], tracer_pid=0)
    caller = msgspec.structs.replace(
        result,
        kind=CallerKind.PROGRAM,
        accountable=0,
        program=PROGRAM,
        classes=result.classes[:1],
        level=LEVEL,
        reasons=(),
        inline=False,
        launchers=(),
        durable=True,
    )
    return msgspec.structs.replace(evidence, chain=(process,)), caller


def grants_of(known: Known, caller: AttestationResult, server: str, now_ns: int) -> tuple[Grant, ...]:
    """What the caller holds."""
    if not known.tools:
        return ()
    ends_ns = now_ns - 1 if known.ended else now_ns + HOUR_NS
    grant = Grant(
        id=server,
        subject=Subject(uid=caller.uid, program_kind="exact", program=caller.program),
        object=Object(server=server, tools=known.tools),
        min_level=known.min_level,
        lifetime=Lifetime(kind="until", until_ns=ends_ns),
        created_ns=now_ns - HOUR_NS,
        approved_by="",
        how="configuration",
        origin=server,
        display=caller.display,
    )
    return (grant,)
