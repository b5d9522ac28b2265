"""What the daemon answers about decisions and the log. A user is shown that user's records, an administrator all.

A record is of the user whose uid it carries: the caller of a decision, the peer of a session, who approved. Records of
the service itself carry none. Reading the log is slow work: what one user asks for waits for that user's earlier
questions, not for others'.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import TypeVar

from attestd.audit.query import Filters, Row, query, tail
from attestd.audit.verify import verify
from attestd.control import messages as m
from attestd.control import replies as r
from attestd.control.times import nanoseconds
from attestd.daemon import explanations, views
from attestd.daemon.asked import Asked, Caller
from attestd.errors import NothingToDoError

FOLLOW_S = 0.3
BATCH = 256
T = TypeVar("T")


class AuditAnswers(Asked):
    """Of one daemon."""

    async def explain(self, caller: Caller, request: m.Explain) -> r.Explanation:
        """One recorded decision again."""
        filters = Filters(kinds=("decision", "hop"), id=request.decision, uid=caller.sees)
        rows = await self._in_thread(caller, lambda: tail(self._daemon.paths.audit, 1, filters))
        if not rows:
            raise NothingToDoError(
                f"cannot find the decision {request.decision!r}", hint="list them with: attestctl audit tail"
            )
        bodies = Filters(kinds=("caller",), id=rows[0].record.caller)
        callers = await self._in_thread(caller, lambda: tail(self._daemon.paths.audit, 1, bodies))
        body = callers[0].record.body if callers else b""
        return explanations.recorded(self._daemon, rows[0].record, body)

    async def audit_tail(self, caller: Caller, request: m.TailAudit) -> AsyncIterator[r.Record]:
        """The last records, and with ``follow`` each new one."""
        directory, sees = self._daemon.paths.audit, self._sees(caller)
        seen = self._daemon.audit.head().size - 1  # before reading: what is appended meanwhile is followed
        rows = await self._in_thread(caller, lambda: tail(directory, request.lines, Filters(uid=sees)))
        for row in rows:
            yield views.record(row)
            seen = max(seen, row.record.seq)
        while request.follow:
            await asyncio.sleep(FOLLOW_S)
            missing = self._daemon.audit.head().size - 1 - seen
            if missing <= 0:
                continue
            fresh = await self._in_thread(caller, lambda missing=missing: tail(directory, missing))  # type: ignore[misc]
            if fresh and fresh[0].record.seq > seen + 1 and self._daemon.audit.head().size - 1 - seen > missing:
                continue  # more was appended meanwhile, and stands where the oldest of these should
            for row in fresh:
                if row.record.seq > seen:
                    seen = row.record.seq
                    if sees in {None, row.record.uid}:
                        yield views.record(row)

    async def audit_query(self, caller: Caller, request: m.QueryAudit) -> AsyncIterator[r.Record]:
        """Matching records."""
        filters = Filters(
            kinds=() if request.kind is None else (request.kind,),
            server=request.server or "",
            verdict=request.verdict or "",
            cause=request.cause or "",
            caller=request.caller or "",
            since_ns=None if request.since is None else nanoseconds(request.since),
            until_ns=None if request.until is None else nanoseconds(request.until),
            id=request.id or "",
            session=request.session or "",
            uid=self._sees(caller),
        )
        rows = (row for row in query(self._daemon.paths.audit, filters) if _also(row, request))
        left = request.limit
        while True:
            batch = await self._in_thread(caller, lambda: list(islice(rows, BATCH)))
            for row in batch if left is None else batch[:left]:
                yield views.record(row)
            left = None if left is None else left - len(batch)
            if len(batch) < BATCH or (left is not None and left <= 0):
                return

    async def audit_verify(self, caller: Caller, request: m.VerifyAudit) -> AsyncIterator[r.Progress | r.Verification]:
        """Check the whole log against the running daemon's own head."""
        del request
        daemon = self._daemon
        head = daemon.audit.head()
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            done = count

        work = asyncio.ensure_future(
            self._in_thread(caller, lambda: verify(daemon.paths.audit, external_head=head, progress=progress))
        )
        while not work.done():
            await asyncio.wait((work,), timeout=0.5)
            yield r.Progress(done=done, total=head.size, what="records")
        yield views.verification(await work)

    async def _in_thread(self, caller: Caller, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._daemon.readers.submit_for(caller.uid, work))


def _also(row: Row, request: m.QueryAudit) -> bool:
    record = row.record
    return (
        (request.method is None or record.method == request.method)
        and (request.name is None or record.name == request.name)
        and (request.pid is None or record.pid == request.pid)
    )
