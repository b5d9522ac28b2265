"""Whose call it is when uids differ: the weaker one, and both are reported (attack I22).

The weaker of root and an ordinary user is the ordinary user. Between two ordinary users nothing is weaker: on the
path of the call that is ambiguous; in the launch context (``su other`` under a shell) the caller is who the client
runs as, capped.
"""

from __future__ import annotations

from attestd.appraisal.attribution import Attribution
from attestd.appraisal.caps import reason
from attestd.appraisal.model import Reason
from attestd.evidence.model import Evidence, Link


def weaker_uid(link: Link) -> int:
    """The real uid, or, where that is root's, the first of effective, saved and file-system uid that is not."""
    return next((uid for uid in link.uids if uid != 0), 0)


def decide_uid(evidence: Evidence, attribution: Attribution) -> tuple[int, tuple[Reason, ...]]:
    """The uid that is decided on, and every reason that differing uids give."""
    path = evidence.chain[: attribution.accountable + 1]
    launch = evidence.chain[: attribution.last + 1]
    reasons: list[Reason] = [
        reason("uid-mixed", "uids " + "/".join(str(uid) for uid in link.uids))
        for link in path
        if len(set(link.uids)) > 1
    ]
    on_path = {evidence.peer.uid, *(weaker_uid(link) for link in path)}
    around = on_path | {weaker_uid(link) for link in launch}
    if len(around) > 1:
        reasons.append(reason("uid-crossed", "uids " + ", ".join(str(uid) for uid in sorted(around))))
    ordinary = sorted(on_path - {0})
    if len(ordinary) > 1:
        reasons.append(reason("uid-ambiguous", "uids " + ", ".join(str(uid) for uid in ordinary)))
        return weaker_uid(path[-1]), tuple(reasons)
    if ordinary:
        return ordinary[0], tuple(reasons)
    outer = next((weaker_uid(link) for link in launch if weaker_uid(link) != 0), 0)
    return outer, tuple(reasons)
