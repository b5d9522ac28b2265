"""Grants and waiting requests: the store, the list, and the acts of a person on them.

Rules. First the audit record, then the row. What is in force after a start is what the log says, not what the file
says: rows that the log does not confirm are refused and reported. In user mode waiting requests do not survive a
restart, because a stored one could be forged by the processes that it would let in; refused clients come back by
themselves.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from attestd.audit.protocol import Entry
from attestd.audit.query import Filters, query
from attestd.daemon.sessions import SessionCaller
from attestd.decision.model import Deny
from attestd.errors import AttestdError, Cause, NothingToDoError, NotPermittedError
from attestd.evidence.model import Evidence
from attestd.grants.approve import Options, approve
from attestd.grants.integrity import body_digest
from attestd.grants.lifetimes import renewed
from attestd.grants.model import Grant, Pending
from attestd.grants.pending import PendingLimits, Pendings
from attestd.grants.store import Store

if TYPE_CHECKING:
    from attestd.daemon.app import Daemon

MINUTE_NS = 60_000_000_000
LIVE = {"grant.approve", "grant.renew"}
ENDED = {"grant.revoke", "grant.consume"}

Muted = tuple[int, str, str, str]
"""uid, program, chain, server: answered ``deny --always``."""


class Approver(msgspec.Struct, frozen=True, kw_only=True):
    """Who decides, as the audit log names them."""

    uid: int
    pid: int
    display: str
    how: str
    everyone: bool = False
    """It was given the right to manage."""
    may: bool = True
    """It could decide; else it may only look."""

    @property
    def key(self) -> str:
        """For counting wrong codes: per uid, so that a new process is no new guesser.

        Who may only look is counted apart: an agent's guesses must not keep its user from deciding.
        """
        return str(self.uid) if self.may else f"{self.uid} looks"

    @property
    def sees(self) -> int | None:
        """Whose waiting requests this approver may see; None: everybody's."""
        return None if self.uid == 0 or self.everyone else self.uid


class Approvals:
    """Belongs to the loop's thread."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.store = Store(daemon.paths.store)
        minutes = daemon.settings.approval.code_minutes
        self.pendings = Pendings(self.store, secrets.token_bytes, PendingLimits(ttl_ns=minutes * MINUTE_NS))
        self._muted: set[Muted] = set()
        self._contexts: dict[str, Evidence] = {}
        try:
            self._restore()
        except BaseException:
            self.store.close()
            raise

    # -- for sessions -----------------------------------------------------------------------------------------------

    def pend(self, caller: SessionCaller, method: str, name: str, deny: Deny, now_ns: int) -> str | None:
        """Note a refused wish; its code, or None where a person has said no for good or the list cannot be written."""
        result = caller.result
        if (result.uid, result.program, result.chain, caller.server) in self._muted:
            return None
        try:
            pending = self.pendings.add(
                result,
                server=caller.server,
                cause=deny.cause,
                method=method,
                name=name,
                runs=caller.runs,
                now_ns=now_ns,
            )
        except AttestdError as error:
            self._daemon.trouble(error.message)
            return None
        self._contexts[pending.code] = caller.evidence
        if len(self._contexts) > 2 * PendingLimits().total:
            live = {entry.code for entry in self.pendings.list(None, now_ns)}
            self._contexts = {code: context for code, context in self._contexts.items() if code in live}
        return pending.code

    def use(self, grants: tuple[str, ...], session: str, now_ns: int) -> bool:
        """Count a use; use up ``once``, and say if that happened. Raises AttestdError: then nothing may happen."""
        spent = False
        for grant_id in grants:
            grant = self.store.index.get(grant_id)
            if grant is None:
                raise NothingToDoError(f"the grant {grant_id} has ended")
            if grant.lifetime.kind != "once":
                self.store.used(grant_id, now_ns)
                continue
            seq = self._daemon.audit.append(
                Entry(
                    kind="admin",
                    id=grant_id,
                    method="grant.consume",
                    session=session,
                    verdict="ok",
                    uid=grant.subject.uid,
                ),
                now_ns,
            )
            if not self.store.consume(grant_id, now_ns, seq):
                raise NothingToDoError(f"the grant {grant_id} was used up")
            spent = True
            self._daemon.changed()
        return spent

    # -- for people -------------------------------------------------------------------------------------------------

    def waiting(self, sees: int | None) -> tuple[Pending, ...]:
        """What waits, oldest first."""
        return self.pendings.list(sees, time.time_ns())

    def find(self, code: str, approver: Approver) -> Pending:
        """One waiting request by its code. Raises NotPermittedError; a wrong code is recorded, not what was typed."""
        try:
            return self.pendings.find(code, approver=approver.key, uid=approver.sees, now_ns=time.time_ns())
        except NotPermittedError as error:
            self._daemon.refusals.note(
                Entry(
                    kind="admin",
                    method="code",
                    verdict="deny",
                    cause=Cause.BAD_CODE.value,
                    uid=approver.uid,
                    pid=approver.pid,
                    detail={"by": approver.display[:512], "why": error.message[:256]},
                )
            )
            raise

    def context(self, code: str) -> Evidence | None:
        """The evidence behind a waiting request, while it is remembered."""
        return self._contexts.get(code)

    def client_name(self, entry: Pending) -> str | None:
        """What a live session of the same caller calls itself: a claim."""
        for info in self._daemon.sessions.values():
            result = info.caller.result
            if info.server == entry.server and (result.uid, result.program) == (entry.uid, entry.program):
                return info.connection.session.client_name
        return None

    def approve(self, code: str, options: Options, approver: Approver) -> Grant:
        """Make the grant: record, row, and only then is the code used up. Raises AttestdError; then nothing changed."""
        now_ns = time.time_ns()
        pending = self.find(code, approver)
        grant = approve(
            pending,
            options,
            grant_id=f"g-{secrets.token_hex(6)}",
            now_ns=now_ns,
            approved_by=approver.display,
            how=approver.how,
        )
        seq = self._record("grant.approve", grant, approver, now_ns)
        self.store.insert(grant, seq)
        self.pendings.take(code, approver=approver.key, uid=approver.sees, now_ns=now_ns)
        self._contexts.pop(pending.code, None)
        self._daemon.changed()
        return grant

    def deny(self, code: str, approver: Approver, *, always: bool) -> Pending:
        """Drop a waiting request."""
        now_ns = time.time_ns()
        pending = self.find(code, approver)
        muted = (pending.uid, pending.program, pending.chain, pending.server)
        detail: dict[str, str | int | bool] = {
            "program": pending.program,
            "chain": pending.chain,
            "subject_uid": pending.uid,
        }
        self._daemon.audit.append(
            Entry(
                kind="admin",
                id=pending.code,
                method="deny.always" if always else "deny",
                server=pending.server,
                verdict="ok",
                uid=approver.uid,
                pid=approver.pid,
                detail={**detail, "by": approver.display[:512], "how": approver.how},
            ),
            now_ns,
        )
        self.pendings.take(code, approver=approver.key, uid=approver.sees, now_ns=now_ns)
        if always:
            self._muted.add(muted)
        return pending

    def revoke(self, ids: tuple[str, ...], approver: Approver) -> tuple[Grant, ...]:
        """End grants: all of them or none."""
        grants = tuple(self.grant(grant_id, approver) for grant_id in dict.fromkeys(ids))
        now_ns = time.time_ns()
        for grant in grants:
            seq = self._record("grant.revoke", grant, approver, now_ns)
            self.store.revoke(grant.id, now_ns, seq)
        self._daemon.changed()
        return grants

    def renew(self, grant_id: str, word: str, approver: Approver) -> Grant:
        """Another end in time."""
        now_ns = time.time_ns()
        grant = renewed(self.grant(grant_id, approver), word, now_ns)
        self.store.renew(grant, self._record("grant.renew", grant, approver, now_ns))
        self._daemon.changed()
        return grant

    def grant(self, grant_id: str, approver: Approver) -> Grant:
        """A grant in force that this approver may see. Raises NothingToDoError."""
        grant = self.store.index.get(grant_id)
        if grant is None or (approver.sees is not None and grant.subject.uid != approver.sees):
            raise NothingToDoError(f"cannot find the grant {grant_id!r}", hint="list them with: attestctl grants list")
        return grant

    def flush(self) -> None:
        """Write counts and drop what has expired."""
        self.pendings.expire(time.time_ns())
        self.pendings.flush()
        self.store.flush()

    def close(self) -> None:
        """Write what is counted and release the file."""
        try:
            self.pendings.flush()
        finally:
            self.store.close()

    # -- the log ----------------------------------------------------------------------------------------------------

    def _record(self, method: str, grant: Grant, approver: Approver, now_ns: int) -> int:
        return self._daemon.audit.append(
            Entry(
                kind="admin",
                id=grant.id,
                method=method,
                server=grant.object.server,
                verdict="ok",
                uid=approver.uid,
                pid=approver.pid,
                detail={
                    "digest": body_digest(grant),
                    "by": approver.display[:512],
                    "how": approver.how,
                    "for": grant.display[:512],
                    "lifetime": grant.lifetime.kind,
                },
            ),
            now_ns,
        )

    def _restore(self) -> None:
        audited: dict[str, str] = {}
        for row in query(self._daemon.paths.audit, Filters(kinds=("admin",))):
            record = row.record
            if record.method in LIVE:
                audited[record.id] = str(record.detail.get("digest", ""))
            elif record.method in ENDED:
                audited.pop(record.id, None)
            elif record.method == "deny.always":
                detail = record.detail
                uid = detail.get("subject_uid", -1)
                self._muted.add(
                    (
                        uid if isinstance(uid, int) else -1,
                        str(detail.get("program")),
                        str(detail.get("chain")),
                        record.server,
                    )
                )
        verified = self.store.load(audited)
        problems = [f"grant {row.grant_id} is refused: {row.detail}" for row in verified.refused]
        problems += [f"grant {grant_id} is in the audit log but not in the store" for grant_id in verified.missing]
        for problem in problems:
            self._daemon.trouble(problem)
            self._daemon.record(Entry(kind="log", id="grants.mismatch", verdict="deny", detail={"what": problem}))
        if self._daemon.paths.user_mode:
            self.store.purge_pendings()
        else:
            self.pendings.restore(self.store.pendings(time.time_ns()), time.time_ns())
