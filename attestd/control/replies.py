"""What the daemon answers: the JSON that scripts rely on. Keys may be added, never changed or removed.

Digests are lower-case hex, times RFC 3339 in UTC. Many names come from outside (programs, tools, clients): they are
data here, and whoever prints them must escape them.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Root of the replies: unknown keys are ignored when reading."""


class Reason(Reply, frozen=True, kw_only=True):
    """One cap on the level, or one remark (cap 4)."""

    cap: int
    code: str
    detail: str = ""


class Launcher(Reply, frozen=True, kw_only=True):
    """A foreign link between the accountable client and the first terminal or the like."""

    program: str | None
    display: str
    build_step: bool = False


class Identity(Reply, frozen=True, kw_only=True):
    """An attestation result. Field names are those of ``appraisal.model``, so one converts into the other."""

    spiffe_id: str
    program: str
    chain: str
    instance: str
    level: int
    recorded: bool
    reasons: tuple[Reason, ...]
    display: str
    kind: str
    title: str
    uid: int
    inline: bool = False
    launchers: tuple[Launcher, ...] = ()
    login_session: str = ""
    tty: str | None = None
    package: str = ""
    lineage: str = ""


class Peer(Reply, frozen=True, kw_only=True):
    """The kernel's word on a process."""

    pid: int
    uid: int
    gid: int


class Executable(Reply, frozen=True, kw_only=True):
    """The running image of a link."""

    path: str
    sha256: str | None
    owner_uid: int
    writable: bool
    deleted: bool


class Script(Reply, frozen=True, kw_only=True):
    """What an interpreter runs."""

    kind: str
    path: str | None
    sha256: str | None
    name: str = ""


class Origin(Reply, frozen=True, kw_only=True):
    """Who vouches for a file."""

    kind: str
    name: str
    version: str
    verified: bool
    detail: str = ""


class Link(Reply, frozen=True, kw_only=True):
    """One process of a chain."""

    pid: int
    start: int
    """Clock ticks since boot."""
    uid: int
    cls: str = msgspec.field(name="class")
    exe: Executable | None
    script: Script | None
    origin: Origin | None
    comm: str = ""
    argv: tuple[str, ...] = ()
    tty: str | None = None
    posture: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    tracer_pid: int = 0
    recorded: bool = False
    dead: bool = False


class RecorderState(Reply, frozen=True, kw_only=True):
    """What remembers processes for the daemon, and why it is that."""

    state: str
    """on (the kernel recorder) | fallback (process events) | absent"""
    reason: str


class Inspection(Reply, frozen=True, kw_only=True):
    """Answer to ``inspect``."""

    peer: Peer
    chain: tuple[Link, ...]
    """The process itself first, then parent by parent."""
    accountable: int
    """Index into ``chain``."""
    identity: Identity
    end: str = ""
    """Why the chain stops."""
    recorder: RecorderState | None = None
    """What remembered processes when the evidence was collected; None: the daemon does not say."""


class PolicyState(Reply, frozen=True, kw_only=True):
    """What decides now."""

    generation: int
    mode: str


class AuditState(Reply, frozen=True, kw_only=True):
    """Size and head of the log; 0 and empty for who may not know how much others do."""

    records: int
    head: str


class ServerState(Reply, frozen=True, kw_only=True):
    """A line of ``status``."""

    name: str
    transport: str
    state: str


class Trouble(Reply, frozen=True, kw_only=True):
    """One of the last errors."""

    time: datetime
    message: str


class SealState(Reply, frozen=True, kw_only=True):
    """One sealed server."""

    server: str
    port: int
    state: str
    """redirected | refused, with a reason | open, with a reason: it should be sealed and is not"""


class Status(Reply, frozen=True, kw_only=True):
    """Answer to ``status``."""

    mode: str
    """user | system"""
    version: str
    pid: int
    uptime_s: int
    recorder: RecorderState
    servers: tuple[ServerState, ...]
    sessions: int
    policy: PolicyState
    audit: AuditState
    approvers: tuple[str, ...] = ()
    """Digests named by ``approval.approvers``; empty by default."""
    errors: tuple[Trouble, ...] = ()
    not_protected: tuple[str, ...] = ()
    """In plain words: ``control.usermode``, ``control.systemmode``."""
    seals: tuple[SealState, ...] = ()
    """What is, or should be, sealed."""
    note: str = ""
    """The configuration's own words on what this instance is for."""


class Check(Reply, frozen=True, kw_only=True):
    """One line of ``doctor``."""

    name: str
    status: str
    """ok | warn | fail"""
    detail: str
    remedy: str = ""
    cost: str = ""
    """What is lost while it is not ok."""


class Ancestor(Reply, frozen=True, kw_only=True):
    """One process on the way to a session."""

    pid: int
    start: int
    cls: str = msgspec.field(name="class")
    title: str


class Session(Reply, frozen=True, kw_only=True):
    """One line of ``ps``."""

    session: str
    server: str
    caller: Identity
    pid: int
    since: datetime
    calls: int
    denials: int
    ancestors: tuple[Ancestor, ...] = ()
    """Outermost first; the last is the peer itself."""
    client_name: str | None = None
    """As the client calls itself: a claim."""


class Want(Reply, frozen=True, kw_only=True):
    """What a refused client asked for."""

    method: str
    name: str
    count: int


class Pending(Reply, frozen=True, kw_only=True):
    """One refused client that waits."""

    code: str
    caller: Identity
    server: str
    wants: tuple[Want, ...]
    cause: str
    first_seen: datetime
    last_seen: datetime
    expires: datetime | None = None
    count: int = 0
    client_name: str | None = None
    chain: tuple[Link, ...] = ()
    """As far as it is still known; the process itself first."""
    accountable: int = 0


class Subject(Reply, frozen=True, kw_only=True):
    """Whom a grant names."""

    uid: int
    program_kind: str
    program: str
    launched_by: tuple[str, ...] = ()
    inline: bool = False
    kind: str = "program"
    search_paths: tuple[str, ...] = ()


class Object(Reply, frozen=True, kw_only=True):
    """What is granted on one server."""

    server: str
    tools: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    server_requests: tuple[str, ...] = ()


class Grant(Reply, frozen=True, kw_only=True):
    """One grant."""

    id: str
    subject: Subject
    object: Object
    min_level: int
    lifetime: str
    """once | process | session | until | binary | standing"""
    expires: datetime | None
    hits: int
    last_used: datetime | None
    approved_by: str
    origin: str
    how: str = ""
    display: str = ""
    created: datetime | None = None
    revoked: datetime | None = None
    key: str | None = None
    """What ``process`` and ``session`` are bound to."""
    warnings: tuple[str, ...] = ()
    """What it accepts that nobody should accept unknowingly, one line each."""

    @property
    def terms(self) -> str:
        """Digest of all that the grant allows: two proposals are the same if and only if theirs are equal.

        The end of a grant of limited time moves with the clock, so only that it is of limited time counts.
        """
        said = (self.subject, self.object, self.min_level, self.lifetime, self.key)
        return hashlib.sha256(msgspec.json.encode(said)).hexdigest()


class PendingDetail(Reply, frozen=True, kw_only=True):
    """What a person needs to decide on one pending client."""

    pending: Pending
    proposed: Grant
    """What the asked terms would grant; its id means nothing yet."""
    notes: tuple[str, ...] = ()
    """Where defaults decided, and what is unusual about the caller: one line each."""
    difference: tuple[str, ...] = ()
    """From the last approved identity, one line each."""
    last_approved: Grant | None = None


class Denied(Reply, frozen=True, kw_only=True):
    """A pending entry that was dropped."""

    code: str
    always: bool
    server: str
    display: str


class Server(Reply, frozen=True, kw_only=True):
    """One server of the registry. Values of its environment are not told, only names."""

    name: str
    transport: str
    state: str
    command: tuple[str, ...] = ()
    path: str | None = None
    url: str | None = None
    env: tuple[str, ...] = ()
    run_as: str = "caller"
    shared: bool = False
    socket: str = ""
    """What clients connect to."""
    sessions: int = 0
    origin: str = ""
    """The configuration file, or ``control``."""
    detail: str = ""
    """Why it is not running, or empty."""
    sealed: str = ""
    """What becomes of direct connections to a sealed server; empty: it is not sealed."""
    owner: int | None = None
    """The uid that registered it for itself alone; its name then ends with that. None: for everybody."""


class Clause(Reply, frozen=True, kw_only=True):
    """One condition of a decision."""

    id: str
    text: str
    holds: bool


class Explanation(Reply, frozen=True, kw_only=True):
    """Answer to ``explain`` and ``why``."""

    decision: str
    """Empty: it has not happened."""
    time: datetime | None
    verdict: str
    """permit | deny"""
    cause: str
    detail: str
    caller: Identity
    server: str
    method: str
    name: str
    policies: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    generation: int = 0
    mode: str = ""
    inputs: dict[str, str | int | bool] = {}
    clauses: tuple[Clause, ...] = ()
    changes: tuple[str, ...] = ()
    """What would have to change for the other verdict, one sentence each."""


class Record(Reply, frozen=True, kw_only=True):
    """One audit record."""

    seq: int
    time: datetime
    kind: str
    id: str
    session: str
    server: str
    method: str
    name: str
    caller: str
    verdict: str
    cause: str
    policies: tuple[str, ...] = ()
    generation: int = 0
    mode: str = ""
    args_sha256: str = ""
    latency_ns: int = 0
    uid: int = -1
    pid: int = 0
    detail: dict[str, str | int | bool] = {}
    display: str = ""
    """The caller's line, from the record that ``caller`` names."""


class Problem(Reply, frozen=True, kw_only=True):
    """One thing that is wrong with the log."""

    what: str
    record: int | None = None
    """Sequence number of the first record that it touches."""
    segment: str = ""
    offset: int | None = None
    """Bytes from the start of the segment."""


class Verification(Reply, frozen=True, kw_only=True):
    """Answer to ``audit verify``."""

    ok: bool
    records: int
    segments: int
    head: str
    problems: tuple[Problem, ...]


class Reloaded(Reply, frozen=True, kw_only=True):
    """Answer to ``reload``."""

    generation: int
    changes: tuple[str, ...] = ()


class Progress(Reply, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """How far long work is. ``total`` 0: not known."""

    done: int
    total: int
    what: str
