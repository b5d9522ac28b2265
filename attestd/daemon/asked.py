"""What every part of the daemon's answers needs: the daemon, who asks, what exists for whom, and the record of acts."""

from __future__ import annotations

import time

from attestd.appraisal.model import AttestationResult
from attestd.audit.protocol import Entry
from attestd.control.service import ControlCaller
from attestd.daemon.app import Daemon
from attestd.daemon.approvals import Approver
from attestd.daemon.authorizing import Authorizing

Caller = ControlCaller[AttestationResult]


class Asked:
    """Of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._authorizing = Authorizing(daemon)

    def _sees(self, caller: Caller) -> int | None:
        """Whose part of what the service has exists for the caller; None: all of it. User mode has one user."""
        return None if self._daemon.paths.user_mode else caller.sees

    def _counts(self, sees: int | None) -> dict[str, int]:
        """Sessions by server, as far as they exist for whoever sees this."""
        counts: dict[str, int] = {}
        for info in self._daemon.sessions.values():
            if sees in {None, info.peer.uid}:
                counts[info.server] = counts.get(info.server, 0) + 1
        return counts

    def _act(self, caller: Caller, method: str, server: str, detail: dict[str, str | int | bool]) -> None:
        """Record an act of administration before it happens. Raises AuditUnavailableError."""
        approver = approver_of(caller)
        self._daemon.audit.append(
            Entry(
                kind="admin",
                method=method,
                server=server,
                verdict="ok",
                uid=approver.uid,
                pid=approver.pid,
                detail={**detail, "by": approver.display[:512], "how": approver.how},
            ),
            time.time_ns(),
        )


def approver_of(caller: Caller) -> Approver:
    """The caller as somebody who decides."""
    return Approver(
        uid=caller.uid,
        pid=caller.pid,
        display=caller.display,
        how=caller.how,
        everyone=caller.everyone,
        may=bool(caller.how) or caller.asks,
    )
