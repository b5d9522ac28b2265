"""Requests of the control protocol, and the lines it is made of.

The daemon speaks first. It attests the caller before it reads a byte, then says hello with a nonce; every request
carries that nonce, so no request can be older than the attestation (docs/adr/0012).

    daemon  {"type":"hello","protocol":"1.0","version":"0.1.0","nonce":"<32 hex>"}
    client  {"protocol":"1.0","nonce":"<32 hex>","request":{"type":"status"}}
    daemon  {"type":"item","data":{...}}                       none, one or many
    daemon  {"type":"progress","done":1,"total":9,"what":"…"}  in between, on long work
    daemon  {"type":"done"} or {"type":"failure","code":"…","message":"…","hint":"…","exit_code":4}

One line is one JSON object, at most REQUEST_BYTES from the client and REPLY_BYTES from the daemon. One request is
open at a time; after its last line the next may follow. Unknown keys of a request are errors, so an option that an
older daemon does not know is never dropped silently; unknown keys of replies are ignored. A change that breaks this
raises the major number.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Generic, Literal, TypeVar

import msgspec

from attestd.control.replies import (
    Check,
    Denied,
    Explanation,
    Grant,
    Inspection,
    Pending,
    PendingDetail,
    Record,
    Reloaded,
    Server,
    Session,
    Status,
    Verification,
)

PROTOCOL: Final = "1.0"
REQUEST_BYTES: Final = 1 << 20
REPLY_BYTES: Final = 16 << 20

ReplyT = TypeVar("ReplyT")

Word = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
Words = Annotated[tuple[Word, ...], msgspec.Meta(max_length=1024)]
Pid = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
ProgramKind = Literal["exact", "package", "lineage"]
Transport = Literal["stdio", "unix", "http", "sse"]


class Request(
    msgspec.Struct,
    Generic[ReplyT],
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
):
    """Root of the requests. The type argument is what each item of the answer is."""


class Scoped(Request[ReplyT], Generic[ReplyT], frozen=True, kw_only=True):
    """A request about what belongs to a user."""

    all_users: bool | msgspec.UnsetType = msgspec.UNSET
    """Everybody's, not only the asker's own; on a system installation that needs the right to manage.

    Left out where it is not so, for daemons of an earlier version."""


class GetStatus(Scoped[Status], frozen=True, kw_only=True, tag="status"):
    """How the daemon is."""


class RunDoctor(Scoped[Check], frozen=True, kw_only=True, tag="doctor"):
    """Every check, one item each."""


class Inspect(Scoped[Inspection], frozen=True, kw_only=True, tag="inspect"):
    """Evidence and attestation result of a process. ``pid`` None: of the caller itself."""

    pid: Pid | None = None


class ListSessions(Scoped[Session], frozen=True, kw_only=True, tag="ps"):
    """Live sessions."""


class ListPending(Scoped[Pending], frozen=True, kw_only=True, tag="pending"):
    """Refused clients that wait for a decision."""


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person asks to grant. What is left out, the daemon fills in, and shows before it counts."""

    tools: Words = ()
    """Exact names or anchored globs. The same for the next two."""
    all_tools: bool = False
    resources: Words = ()
    prompts: Words = ()
    server_requests: Words = ()
    """Methods, or the words sampling, elicitation, roots."""
    lifetime: str = ""
    """once | process | session | binary | standing | a duration such as 15m. Empty: the longest that fits the
    caller."""
    program: ProgramKind = "exact"
    launched_by: Words | None = None
    """None: the launchers that were present. Else any of ``any-interactive``, ``unreadable``, a launcher's line or
    program digest."""
    inline: bool = False
    min_level: Annotated[int, msgspec.Meta(ge=1, le=4)] = 1


class ShowPending(Scoped[PendingDetail], frozen=True, kw_only=True, tag="pending-show"):
    """One of them, what these terms would grant, and the difference from the last approval. Nothing is changed."""

    pending: Word
    """The approval code, as typed: case and hyphen do not matter."""
    terms: Terms = Terms()


class Approve(Scoped[Grant], frozen=True, kw_only=True, tag="approve"):
    """Make one grant."""

    pending: Word
    """The approval code."""
    terms: Terms = Terms()
    shown: str = ""
    """``Grant.terms`` of the grant that the person was shown. The service refuses if these terms mean another by
    now."""


class Deny(Scoped[Denied], frozen=True, kw_only=True, tag="deny"):
    """Drop a pending entry; ``always`` keeps it from coming back."""

    pending: Word
    always: bool = False


class ListGrants(Scoped[Grant], frozen=True, kw_only=True, tag="grants"):
    """Grants, newest last. Filters are joined by *and*."""

    server: str | None = None
    unused_s: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Only those without a hit for so long."""
    ended: bool = False
    """Revoked and expired ones too."""


class ShowGrant(Scoped[Grant], frozen=True, kw_only=True, tag="grants-show"):
    """One grant."""

    grant: Word


class RevokeGrants(Scoped[Grant], frozen=True, kw_only=True, tag="grants-revoke"):
    """End grants now; the sessions that live on them end within a second. All of them or none."""

    grants: Annotated[tuple[Word, ...], msgspec.Meta(min_length=1, max_length=1024)]


class RenewGrant(Scoped[Grant], frozen=True, kw_only=True, tag="grants-renew"):
    """Let a grant that ends at a time end later, counted from now."""

    grant: Word
    lifetime: Word
    """A duration such as 1h."""


class ListServers(Scoped[Server], frozen=True, kw_only=True, tag="servers"):
    """The registry."""


class ShowServer(Scoped[Server], frozen=True, kw_only=True, tag="servers-show"):
    """One server."""

    name: Word


class AddServer(Request[Server], frozen=True, kw_only=True, tag="servers-add"):
    """Register a server and open its socket."""

    name: Word
    transport: Transport = "stdio"
    command: Words = ()
    path: str | None = None
    """Of the back end's Unix socket, for transport ``unix``; with a url: HTTP is spoken over it."""
    url: str | None = None
    """For transports ``http`` and ``sse``."""
    token_file: str | None = None
    header_files: dict[Word, str] = {}
    ca_file: str | None = None
    program: Word | None = None
    """Program digest that must answer."""
    env: dict[Word, str] = {}
    run_as: Word = "caller"
    shared: bool = False
    own: bool | msgspec.UnsetType = msgspec.UNSET
    """For the asker alone, where the administrator allows it."""


class TrustServer(Scoped[Server], frozen=True, kw_only=True, tag="servers-trust"):
    """Forget which program answered at a server's address: the next one that answers is pinned."""

    name: Word


class SealServer(Request[Server], frozen=True, kw_only=True, tag="servers-seal"):
    """Close a server's port on this machine to everybody but attestd."""

    name: Word
    refuse: bool = False
    """Refuse direct connections instead of serving them."""


class UnsealServer(Request[Server], frozen=True, kw_only=True, tag="servers-unseal"):
    """Open it again. The server need not be registered any more."""

    name: Word


class RemoveServer(Scoped[Server], frozen=True, kw_only=True, tag="servers-remove"):
    """Take a server out of the registry; its sessions end."""

    name: Word


class Explain(Scoped[Explanation], frozen=True, kw_only=True, tag="explain"):
    """One decision again."""

    decision: Word


class Why(Scoped[Explanation], frozen=True, kw_only=True, tag="why"):
    """A call that has not happened. Exactly one of tool, resource and prompt, or none: may it connect?"""

    pid: Pid | None = None
    """None: the caller itself."""
    server: Word
    tool: Word | None = None
    resource: Word | None = None
    prompt: Word | None = None


class TailAudit(Scoped[Record], frozen=True, kw_only=True, tag="audit-tail"):
    """The last records, oldest first; with ``follow``, then each new one until the client goes."""

    lines: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 10
    follow: bool = False


class QueryAudit(Scoped[Record], frozen=True, kw_only=True, tag="audit-query"):
    """Records that match every stated field, oldest first."""

    since: datetime | None = None
    until: datetime | None = None
    kind: str | None = None
    id: str | None = None
    session: str | None = None
    server: str | None = None
    method: str | None = None
    name: str | None = None
    caller: str | None = None
    """Prefix of the caller record's digest or of the program digest."""
    verdict: str | None = None
    cause: str | None = None
    pid: Pid | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class VerifyAudit(Request[Verification], frozen=True, kw_only=True, tag="audit-verify"):
    """Check chain, tree and checkpoints of the whole log; progress comes in between."""


class Reload(Request[Reloaded], frozen=True, kw_only=True, tag="reload"):
    """Read the configuration again; a bad one is refused and the old one stays."""


AnyRequest = (
    GetStatus
    | RunDoctor
    | Inspect
    | ListSessions
    | ListPending
    | ShowPending
    | Approve
    | Deny
    | ListGrants
    | ShowGrant
    | RevokeGrants
    | RenewGrant
    | ListServers
    | ShowServer
    | AddServer
    | TrustServer
    | SealServer
    | UnsealServer
    | RemoveServer
    | Explain
    | Why
    | TailAudit
    | QueryAudit
    | VerifyAudit
    | Reload
)
