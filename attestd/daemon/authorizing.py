"""By what right a request on the control socket is made: the one place that says yes or no to it.

1. The right that the request needs (``routes.needed``). None: everybody, for what is their own.
2. In user mode the caller has it or not (``appraisal.approver``).
3. On a system installation root has every right, and a program that the configuration names the right to approve.
4. Anybody else must be a clean chain first: an agent's shell tool is refused here, before anybody is asked, whatever a
   person would answer.
5. Then polkit asks the person. Only a clear yes counts; the caller is not told it for another request.

A refusal is recorded with its reason. A caller for whom polkit finds no agent is told so and comes again with one.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from attestd.appraisal.model import AttestationResult
from attestd.audit.protocol import Entry
from attestd.control import messages as m
from attestd.control.routes import Right, needed
from attestd.control.service import ControlCaller
from attestd.daemon.polkit import APPROVE, MANAGE, Answer, Authority, PolkitError, Subject
from attestd.errors import AgentNeededError, Cause, NotPermittedError

if TYPE_CHECKING:
    from attestd.daemon.app import Daemon

Caller = ControlCaller[AttestationResult]
QUESTIONS: Final = 4
"""Questions to one user that may be open at a time."""
_VERBS: Final[dict[type[m.Request[Any]], str]] = {
    m.Approve: "approve {pending}",
    m.Deny: "deny {pending}",
    m.RevokeGrants: "revoke grants",
    m.RenewGrant: "renew the grant {grant}",
    m.AddServer: "add the server {name}",
    m.TrustServer: "trust another program as {name}",
    m.SealServer: "seal {name}",
    m.UnsealServer: "unseal {name}",
    m.RemoveServer: "remove the server {name}",
    m.Reload: "reload the configuration",
    m.VerifyAudit: "verify the audit log",
}
_WHY: Final = {
    Answer.NO: "polkit does not authorize it, or the password was wrong",
    Answer.DISMISSED: "the password was not given",
    Answer.KEPT: "polkit keeps the authorization for others to use",
}


class Authorizing:
    """Of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._asking: Counter[int] = Counter()

    async def authorize(self, caller: Caller, request: m.AnyRequest) -> Caller:
        """See ``control.service.Service``."""
        daemon = self._daemon
        system = not daemon.paths.user_mode
        right = needed(request, system=system)  # 1
        if system and isinstance(request, m.RemoveServer | m.TrustServer) and not request.all_users:
            right = daemon.registry.right(request.name, daemon.fronts, caller.uid)
        if right is Right.NONE:
            return caller
        if not system:  # 2
            if not caller.how:
                return self._refuse(caller, request, caller.why_not)
            return caller
        if caller.how == "root" or (caller.how == "approver" and right is Right.APPROVE):  # 3
            return caller
        if not caller.asks:  # 4
            return self._refuse(caller, request, caller.why_not or "a program may approve, and nothing else")
        return await self._ask(caller, request, right)

    async def _ask(self, caller: Caller, request: m.AnyRequest, right: Right) -> Caller:
        authority = self._daemon.authority
        if authority is None:
            return self._refuse(caller, request, "there is no polkit to ask for a password")
        if self._asking[caller.uid] >= QUESTIONS:
            return self._refuse(caller, request, f"{QUESTIONS} passwords are being asked for already")
        self._asking[caller.uid] += 1
        try:
            answer = await self._answer(authority, caller, request, right)  # 5
        finally:
            self._asking[caller.uid] -= 1
            if not self._asking[caller.uid]:
                del self._asking[caller.uid]
        if answer is Answer.YES:
            return _with(caller, everyone=right is Right.MANAGE)
        if answer is Answer.NO_AGENT:
            raise AgentNeededError(
                "cannot ask for the password: no polkit agent serves this terminal or session",
                hint="run attestctl in a terminal, with pkttyagent installed (package polkitd), or do it as root",
            )
        return self._refuse(caller, request, _WHY[answer])

    async def _answer(self, authority: Authority, caller: Caller, request: m.AnyRequest, right: Right) -> Answer:
        subject = Subject(pid=caller.pid, start=caller.start, uid=caller.uid, pidfd=caller.pidfd)
        action = MANAGE if right is Right.MANAGE else APPROVE
        try:
            return await authority.check(subject, action, words(request))
        except PolkitError as error:
            self._note(caller, request, error.message)
            raise NotPermittedError(error.message, hint=error.hint) from error

    def _refuse(self, caller: Caller, request: m.AnyRequest, why: str) -> Caller:
        self._note(caller, request, why)
        raise NotPermittedError(
            f"cannot take this from {caller.display or f'pid {caller.pid}'}: {why}",
            hint="do it yourself: attestctl from a shell in a terminal, or as root",
        )

    def _note(self, caller: Caller, request: m.AnyRequest, why: str) -> None:
        self._daemon.refusals.note(
            Entry(
                kind="admin",
                id=str(getattr(request, "pending", ""))[:64],
                method=type(request).__name__,
                verdict="deny",
                cause=Cause.NOT_APPROVER.value,
                uid=caller.uid,
                pid=caller.pid,
                detail={"by": caller.display[:512], "why": why[:256]},
            )
        )


def words(request: m.Request[Any]) -> str:
    """What is asked, for the dialog: nothing in it can be mistaken for another part of the dialog."""
    verb = _VERBS.get(type(request), "see what is all users'")
    fields = {name: str(getattr(request, name)) for name in ("pending", "grant", "name") if hasattr(request, name)}
    return re.sub(r"[^\w .:/@=-]", "?", verb.format(**fields), flags=re.ASCII)[:80]


def _with(caller: Caller, *, everyone: bool) -> Caller:
    return ControlCaller(
        uid=caller.uid,
        pid=caller.pid,
        result=caller.result,
        how="polkit",
        display=caller.display,
        start=caller.start,
        pidfd=caller.pidfd,
        everyone=everyone,
    )
