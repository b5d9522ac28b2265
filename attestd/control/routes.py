"""The table of requests: which method of the service answers, with what, and by what right one may ask.

Rights. NONE: everybody, about what is the asker's own. APPROVE: who may decide for the asker's own programs. MANAGE:
who may decide for everybody's. In user mode there is one user, so the two are one. On a system installation MANAGE is
root's, or asked for (``dev.attestd.manage``), and whatever is about all users at once needs it, however harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from attestd.control import messages as m
from attestd.control import replies as r


class Shape(Enum):
    """ONE: a coroutine with one reply. MANY: a coroutine with a sequence. STREAM: an async iterator."""

    ONE = "one"
    MANY = "many"
    STREAM = "stream"


class Right(Enum):
    """See the module."""

    NONE = "none"
    APPROVE = "approve"
    MANAGE = "manage"


@dataclass(frozen=True, slots=True)
class Route:
    """One row."""

    method: str
    reply: type[r.Reply]
    shape: Shape
    right: Right = Right.NONE
    whole: bool = False
    """The answer is about all users at once."""


_ONE, _MANY, _STREAM = Shape.ONE, Shape.MANY, Shape.STREAM
_APPROVE, _MANAGE = Right.APPROVE, Right.MANAGE

ROUTES: Final[dict[type[m.Request[Any]], Route]] = {
    m.GetStatus: Route("status", r.Status, _ONE),
    m.RunDoctor: Route("doctor", r.Check, _MANY),
    m.Inspect: Route("inspect", r.Inspection, _ONE),
    m.ListSessions: Route("ps", r.Session, _MANY),
    m.ListPending: Route("pending", r.Pending, _MANY),
    m.ShowPending: Route("pending_show", r.PendingDetail, _ONE),
    m.Approve: Route("approve", r.Grant, _ONE, _APPROVE),
    m.Deny: Route("deny", r.Denied, _ONE, _APPROVE),
    m.ListGrants: Route("grants", r.Grant, _MANY),
    m.ShowGrant: Route("grants_show", r.Grant, _ONE),
    m.RevokeGrants: Route("grants_revoke", r.Grant, _MANY, _APPROVE),
    m.RenewGrant: Route("grants_renew", r.Grant, _ONE, _APPROVE),
    m.ListServers: Route("servers", r.Server, _MANY),
    m.ShowServer: Route("servers_show", r.Server, _ONE),
    m.AddServer: Route("servers_add", r.Server, _ONE, _MANAGE),
    m.TrustServer: Route("servers_trust", r.Server, _ONE, _MANAGE),
    m.SealServer: Route("servers_seal", r.Server, _ONE, _MANAGE),
    m.UnsealServer: Route("servers_unseal", r.Server, _ONE, _MANAGE),
    m.RemoveServer: Route("servers_remove", r.Server, _ONE, _MANAGE),
    m.Explain: Route("explain", r.Explanation, _ONE),
    m.Why: Route("why", r.Explanation, _ONE),
    m.TailAudit: Route("audit_tail", r.Record, _STREAM),
    m.QueryAudit: Route("audit_query", r.Record, _STREAM),
    m.VerifyAudit: Route("audit_verify", r.Verification, _STREAM, whole=True),
    m.Reload: Route("reload", r.Reloaded, _ONE, _MANAGE),
}


def needed(request: m.Request[Any], *, system: bool) -> Right:
    """The right that a request needs on a system installation, or in user mode."""
    route = ROUTES[type(request)]
    if not system:
        return route.right
    if route.whole or getattr(request, "all_users", False):
        return Right.MANAGE
    if getattr(request, "own", False):
        return Right.APPROVE
    return route.right
