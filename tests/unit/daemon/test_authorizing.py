"""By what right a request is made on a system installation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.audit.query import Filters, query
from attestd.control import messages as m
from attestd.control.service import ControlCaller
from attestd.daemon.authorizing import QUESTIONS, Authorizing, Caller, words
from attestd.daemon.polkit import APPROVE, MANAGE
from attestd.errors import AgentNeededError, NotPermittedError
from tests.fakes.authority import FakeAuthority
from tests.support.daemons import Inside

ROOT: Caller = ControlCaller(uid=0, pid=1, result=None, how="root")
NAMED: Caller = ControlCaller(uid=5, pid=2, result=None, how="approver")
CLEAN: Caller = ControlCaller(uid=5, pid=3, result=None, how="", why_not="no password", asks=True, start=9)
AGENT: Caller = ControlCaller(uid=5, pid=4, result=None, how="", why_not="node is among its ancestors")
ONE = m.Approve(pending="7F3K-9QRT")
ALL = m.Approve(pending="7F3K-9QRT", all_users=True)


pytestmark = pytest.mark.root
"""The configuration of a system installation is root's, or it is refused."""


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp, system=True)
    yield inside
    await inside.close()


@pytest.fixture(name="authority")
def _authority(inside: Inside) -> FakeAuthority:
    inside.daemon.authority = FakeAuthority()
    return inside.daemon.authority


def refusals(inside: Inside) -> list[str]:
    """Why callers were refused, as recorded."""
    rows = query(inside.paths.audit, Filters(kinds=("admin",), cause="not_approver"))
    return [str(row.record.detail["why"]) for row in rows]


async def test_looking_at_ones_own_needs_no_right(inside: Inside, authority: FakeAuthority):
    """Nobody is asked, and nothing changes about the caller."""
    for caller in (ROOT, NAMED, CLEAN, AGENT):
        assert await Authorizing(inside.daemon).authorize(caller, m.ListGrants()) is caller
    assert authority.asked == []


async def test_root_and_named_programs_are_not_asked(inside: Inside, authority: FakeAuthority):
    """Root decides everything, a named program about its own user's only; nobody gives a password."""
    door = Authorizing(inside.daemon)
    assert await door.authorize(ROOT, ALL) is ROOT
    assert await door.authorize(NAMED, ONE) is NAMED
    for request in (ALL, m.Reload(), m.VerifyAudit()):
        with pytest.raises(NotPermittedError, match="a program may approve, and nothing else"):
            await door.authorize(NAMED, request)
    assert authority.asked == []


async def test_a_password_gives_the_right_for_one_request(inside: Inside, authority: FakeAuthority):
    """The action is that of the right, the words say what is asked; to manage shows everybody's, to approve does not."""
    authority.agents = {5: "right"}
    authority.admins.add(5)
    door = Authorizing(inside.daemon)
    one, every = await door.authorize(CLEAN, ONE), await door.authorize(CLEAN, ALL)
    assert (one.how, one.sees, every.how, every.sees) == ("polkit", 5, "polkit", None)
    assert authority.asked == [(5, APPROVE, "approve 7F3K-9QRT"), (5, MANAGE, "approve 7F3K-9QRT")]
    assert CLEAN.how == ""


async def test_an_unclean_chain_is_refused_before_anybody_is_asked(inside: Inside, authority: FakeAuthority):
    """Whatever the person would answer."""
    authority.agents = {5: "right"}
    with pytest.raises(NotPermittedError, match="node is among its ancestors"):
        await Authorizing(inside.daemon).authorize(AGENT, ONE)
    assert authority.asked == []
    assert refusals(inside) == ["node is among its ancestors"]


@pytest.mark.parametrize(
    ("does", "keeps", "broken", "why"),
    [
        ("wrong", False, "", "the password was wrong"),
        ("dismiss", False, "", "the password was not given"),
        ("right", True, "", "polkit keeps the authorization"),
        ("right", False, "the bus is away", "the bus is away"),
    ],
)
async def test_only_a_clear_yes_counts(
    inside: Inside, authority: FakeAuthority, does: str, keeps: bool, broken: str, why: str
):
    """Everything else is refused and recorded."""
    authority.agents, authority.keeps, authority.broken = {5: does}, keeps, broken
    with pytest.raises(NotPermittedError, match=why):
        await Authorizing(inside.daemon).authorize(CLEAN, ONE)
    assert [why in each for each in refusals(inside)] == [True]


async def test_without_an_agent_the_caller_is_told_and_not_blamed(inside: Inside, authority: FakeAuthority):
    """It comes again with one; that is no refusal."""
    del authority
    with pytest.raises(AgentNeededError):
        await Authorizing(inside.daemon).authorize(CLEAN, ONE)
    assert refusals(inside) == []


async def test_without_polkit_only_root_decides(inside: Inside):
    """Nobody can be asked."""
    door = Authorizing(inside.daemon)
    with pytest.raises(NotPermittedError, match="no polkit"):
        await door.authorize(CLEAN, ONE)
    assert await door.authorize(ROOT, ONE) is ROOT


async def test_who_goes_takes_the_question_back_and_there_are_few_at_a_time(inside: Inside, authority: FakeAuthority):
    """More than a few open questions of one user are refused; a cancelled one is taken back and counts no more."""
    authority.agents = {5: "wait", 6: "right"}
    door = Authorizing(inside.daemon)
    open_ = [asyncio.ensure_future(door.authorize(CLEAN, ONE)) for _ in range(QUESTIONS)]
    await authority.waiting.wait()
    with pytest.raises(NotPermittedError, match="are being asked for already"):
        await door.authorize(CLEAN, ONE)
    other: Caller = ControlCaller(uid=6, pid=7, result=None, how="", asks=True)
    assert (await door.authorize(other, ONE)).how == "polkit"
    for each in open_:
        each.cancel()
    await asyncio.gather(*open_, return_exceptions=True)
    assert authority.taken_back == QUESTIONS
    authority.agents[5] = "right"
    assert (await door.authorize(CLEAN, ONE)).how == "polkit"


def test_the_words_of_the_dialog_hold_nothing_of_others():
    """Names come from the asker: what is no plain word is replaced, and the rest is cut."""
    assert words(m.RemoveServer(name="notes")) == "remove the server notes"
    assert words(m.RevokeGrants(grants=("g-1",))) == "revoke grants"
    assert words(m.Approve(pending="x\n$(rm) <b>")) == "approve x???rm? ?b?"
    assert len(words(m.RemoveServer(name="n" * 4000))) == 80
    assert words(m.ListSessions(all_users=True)) == "see what is all users'".replace("'", "?")
