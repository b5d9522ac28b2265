"""Why a request that no policy permitted was refused, in one cause and one clause for a person.

A refusal tells a caller about its own grants only, never that another tool or server exists.
"""

from __future__ import annotations

from collections.abc import Iterable

from attestd.decision.entities import Named, covers
from attestd.decision.model import Deny
from attestd.errors import Cause
from attestd.grants.match import PLAIN, Match, Rejected, ended
from attestd.grants.model import Grant


def unpermitted(match: Match, server: str, what: Named) -> Deny:
    """The deny for a request that nothing permitted and nothing forbade.

    A grant that names the target but does not hold gives its own cause (``match`` has them in the order of precedence).
    Otherwise the caller has a grant for this server that does not reach so far, or none at all.
    """
    for rejected in match.rejected:
        if rejected.grant.object.server == server and covers(rejected.grant, what):
            return Deny(cause=rejected.cause, detail=rejected.detail, plain=rejected.detail in PLAIN)
    if what.type == "ServerRequest":
        return Deny(cause=Cause.SERVER_REQUEST, detail=f"no grant accepts {what.name} from this server", plain=True)
    held = [*match.linked, *(rejected.grant for rejected in match.rejected)]
    if any(grant.object.server == server for grant in held):
        detail = f"the grant for this server does not name this {_word(what)}"
        return Deny(cause=Cause.OUT_OF_SCOPE, detail=detail, plain=True)
    return Deny(cause=Cause.NO_GRANT, detail="no grant for this program on this server", plain=True)


def expired(match: Match, now_ns: int) -> Match:
    """The match without the grants that have ended since it was made."""
    still: list[Grant] = []
    over: list[Rejected] = []
    for grant in match.linked:
        why = ended(grant, now_ns)
        if why is None:
            still.append(grant)
        else:
            over.append(Rejected(grant=grant, cause=Cause.EXPIRED, detail=why))
    return Match(linked=tuple(still), rejected=(*match.rejected, *over))


def first_end(grants: Iterable[Grant]) -> int | None:
    """When the first of these grants ends, ns since the epoch; None: no end in time."""
    ends = [grant.lifetime.until_ns for grant in grants if grant.lifetime.until_ns is not None]
    return min(ends, default=None)


def _word(what: Named) -> str:
    return {"Tool": "tool", "Resource": "resource", "Prompt": "prompt"}.get(what.type, "request")
