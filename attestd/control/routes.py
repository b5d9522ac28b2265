"""The table of requests: which method of the service answers, with what, and who may ask."""

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


@dataclass(frozen=True, slots=True)
class Route:
    """One row."""

    method: str
    reply: type[r.Reply]
    shape: Shape
    approver: bool


_ONE, _MANY, _STREAM = Shape.ONE, Shape.MANY, Shape.STREAM

ROUTES: Final[dict[type[m.Request[Any]], Route]] = {
    m.GetStatus: Route("status", r.Status, _ONE, approver=False),
    m.RunDoctor: Route("doctor", r.Check, _MANY, approver=False),
    m.Inspect: Route("inspect", r.Inspection, _ONE, approver=False),
    m.ListSessions: Route("ps", r.Session, _MANY, approver=False),
    m.ListPending: Route("pending", r.Pending, _MANY, approver=False),
    m.ShowPending: Route("pending_show", r.PendingDetail, _ONE, approver=False),
    m.Approve: Route("approve", r.Grant, _ONE, approver=True),
    m.Deny: Route("deny", r.Denied, _ONE, approver=True),
    m.ListGrants: Route("grants", r.Grant, _MANY, approver=False),
    m.ShowGrant: Route("grants_show", r.Grant, _ONE, approver=False),
    m.RevokeGrants: Route("grants_revoke", r.Grant, _MANY, approver=True),
    m.RenewGrant: Route("grants_renew", r.Grant, _ONE, approver=True),
    m.ListServers: Route("servers", r.Server, _MANY, approver=False),
    m.ShowServer: Route("servers_show", r.Server, _ONE, approver=False),
    m.AddServer: Route("servers_add", r.Server, _ONE, approver=True),
    m.TrustServer: Route("servers_trust", r.Server, _ONE, approver=True),
    m.SealServer: Route("servers_seal", r.Server, _ONE, approver=True),
    m.UnsealServer: Route("servers_unseal", r.Server, _ONE, approver=True),
    m.RemoveServer: Route("servers_remove", r.Server, _ONE, approver=True),
    m.Explain: Route("explain", r.Explanation, _ONE, approver=False),
    m.Why: Route("why", r.Explanation, _ONE, approver=False),
    m.TailAudit: Route("audit_tail", r.Record, _STREAM, approver=False),
    m.QueryAudit: Route("audit_query", r.Record, _STREAM, approver=False),
    m.VerifyAudit: Route("audit_verify", r.Verification, _STREAM, approver=False),
    m.Reload: Route("reload", r.Reloaded, _ONE, approver=True),
}
