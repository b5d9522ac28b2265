"""A polkit in memory: actions, people with passwords, agents that ask them, and answers as polkit gives them.

It implements ``attestd.daemon.polkit.Authority`` and shares its contract suite with the real one.
"""

from __future__ import annotations

import asyncio

from attestd.daemon.polkit import APPROVE, MANAGE, Answer, PolkitError, Subject, verdict


class FakeAuthority:
    """``agents``: uid and what the person does there (right | wrong | dismiss | wait). ``keeps``: as a rule might."""

    def __init__(self) -> None:
        self.actions = {APPROVE, MANAGE}
        self.admins = {0}
        self.agents: dict[int, str] = {}
        self.keeps = False
        self.broken = ""
        self.asked: list[tuple[int, str, str]] = []
        self.taken_back = 0
        self.waiting = asyncio.Event()

    async def check(self, subject: Subject, action: str, request: str) -> Answer:
        """See ``Authority``."""
        self._demand(action)
        if subject.uid == 0:
            return Answer.YES
        does = self.agents.get(subject.uid)
        if does is None:
            return verdict(authorized=False, challenge=True, details={})
        self.asked.append((subject.uid, action, request))
        if does == "wait":
            self.waiting.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.taken_back += 1
        if does == "dismiss":
            return verdict(authorized=False, challenge=False, details={"polkit.dismissed": "true"})
        right = does == "right" and (action == APPROVE or subject.uid in self.admins)
        kept = {"polkit.temporary_authorization_id": "tmpauthz0"} if self.keeps and right else {}
        return verdict(authorized=right, challenge=False, details=kept)

    async def version(self) -> str:
        """See ``Authority``."""
        if self.broken:
            raise PolkitError(f"cannot ask polkit: {self.broken}")
        return "fake"

    async def knows(self, action: str) -> bool:
        """See ``Authority``."""
        return action in self.actions

    def _demand(self, action: str) -> None:
        if self.broken:
            raise PolkitError(f"cannot ask polkit: {self.broken}")
        if action not in self.actions:
            raise PolkitError(f"cannot ask polkit: no action {action}")
