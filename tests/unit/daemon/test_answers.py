"""What the daemon answers on the control socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from attestd.audit.query import Filters, query
from attestd.control import messages as m
from attestd.control import replies as r
from attestd.daemon.answers import Answers
from attestd.errors import (
    Cause,
    ConfigurationError,
    EvidenceError,
    NothingToDoError,
    NotPermittedError,
    UsageError,
)
from tests.support.daemons import Inside, control_caller, server_text
from tests.support.waiting import until

ROOT = control_caller()
OTHER = control_caller(uid=77, how="", why_not="node (pid 812) is among its ancestors")


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp, settings='note = "a test"\n')
    yield inside
    await inside.close()


@pytest.fixture(name="answers")
async def _answers(inside: Inside) -> Answers:
    return Answers(inside.daemon)


async def everything(stream: Any) -> list[Any]:
    """All that a stream says."""
    return [each async for each in stream]


async def test_status_says_how_it_is(inside: Inside, answers: Answers):
    """Servers, sessions, log, troubles, and what user mode does not protect against."""
    await inside.connect()
    inside.daemon.trouble("something went wrong")
    status = await answers.status(ROOT, m.GetStatus())
    assert (status.mode, status.sessions, status.note) == ("user", 1, "a test")
    assert status.servers == (r.ServerState(name="time", transport="stdio", state="serving"),)
    assert status.recorder.state == "absent"
    assert status.audit.records == inside.daemon.audit.head().size
    assert status.errors[-1].message == "something went wrong"
    assert status.not_protected


async def test_doctor_has_a_line_for_everything(answers: Answers):
    """The checks come through."""
    assert {"disk", "clock", "policy"} <= {check.name for check in await answers.doctor(ROOT, m.RunDoctor())}


async def test_inspect_collects_anew(inside: Inside, answers: Answers):
    """Without a pid the asker itself; a process of another user does not exist for a user, nor one that is gone."""
    found = await answers.inspect(control_caller(pid=os.getpid()), m.Inspect())
    assert found.identity.title
    assert found.chain[0].argv[0] == "python3"
    assert inside.kernel.open == 0
    with pytest.raises(NothingToDoError, match="there is no such process"):
        await answers.inspect(OTHER, m.Inspect(pid=5))
    inside.kernel.failure = EvidenceError(Cause.PEER_GONE, "gone")
    with pytest.raises(NothingToDoError, match="cannot find pid 5"):
        await answers.inspect(ROOT, m.Inspect(pid=5))
    inside.kernel.failure = EvidenceError(Cause.INCONSISTENT, "it kept changing")
    with pytest.raises(EvidenceError):
        await answers.inspect(ROOT, m.Inspect(pid=5))
    inside.kernel.failure = None


async def test_who_may_not_approve_is_refused_and_recorded(inside: Inside, answers: Answers):
    """The refusal names the reason, and so does the log; who may is let through."""
    await answers.authorize(ROOT, m.Reload())
    with pytest.raises(NotPermittedError, match=r"node .pid 812. is among its ancestors"):
        await answers.authorize(OTHER, m.Approve(pending="7F3K-9QRT"))
    rows = list(query(inside.paths.audit, Filters(kinds=("admin",), cause="not_approver")))
    assert (rows[0].record.method, rows[0].record.id, rows[0].record.uid) == ("Approve", "7F3K-9QRT", 77)


async def test_a_user_sees_what_is_that_users(inside: Inside, answers: Answers):
    """Sessions, waiting requests and grants of another uid are not there; root sees all."""
    _, code = await inside.refused()
    assert [each.server for each in await answers.ps(ROOT, m.ListSessions())] == ["time"]
    assert await answers.ps(OTHER, m.ListSessions()) == []
    assert [each.code for each in await answers.pending(ROOT, m.ListPending())] == [code]
    assert await answers.pending(OTHER, m.ListPending()) == []
    await answers.approve(ROOT, m.Approve(pending=code, terms=m.Terms(all_tools=True, lifetime="standing")))
    assert len(await answers.grants(ROOT, m.ListGrants())) == 1
    assert await answers.grants(OTHER, m.ListGrants()) == []


async def test_approving_shows_first_and_grants_what_was_shown(inside: Inside, answers: Answers):
    """The proposal is not yet a grant; if the client asked for more meanwhile, the shown one is refused."""
    client, code = await inside.refused()
    terms = m.Terms(lifetime="standing")
    detail = await answers.pending_show(ROOT, m.ShowPending(pending=code, terms=terms))
    assert detail.pending.code == code
    assert detail.pending.chain
    assert detail.last_approved is None
    assert await answers.grants(ROOT, m.ListGrants()) == []
    await inside.ask(client, "tools/call", {"name": "delete"}, 2)
    with pytest.raises(NotPermittedError, match="has asked for more"):
        await answers.approve(ROOT, m.Approve(pending=code, terms=terms, shown=detail.proposed.terms))
    again = await answers.pending_show(ROOT, m.ShowPending(pending=code, terms=terms))
    assert again.proposed.object.tools == ("delete",)
    grant = await answers.approve(ROOT, m.Approve(pending=code, terms=terms, shown=again.proposed.terms))
    assert grant.object.tools == ("delete",)


async def test_denying(inside: Inside, answers: Answers):
    """The code, the server and the caller are told back."""
    _, code = await inside.refused()
    denied = await answers.deny(ROOT, m.Deny(pending=code, always=True))
    assert (denied.code, denied.always, denied.server) == (code, True, "time")


async def test_grants_are_listed_shown_renewed_and_revoked(inside: Inside, answers: Answers):
    """By server and by disuse; ended ones only on demand."""
    _, code = await inside.refused()
    grant = await answers.approve(ROOT, m.Approve(pending=code, terms=m.Terms(all_tools=True, lifetime="1h")))
    assert await answers.grants(ROOT, m.ListGrants(server="nosuch")) == []
    assert await answers.grants(ROOT, m.ListGrants(unused_s=3600)) == []
    assert len(await answers.grants(ROOT, m.ListGrants(unused_s=0))) == 1
    assert (await answers.grants_show(ROOT, m.ShowGrant(grant=grant.id))).id == grant.id
    renewed = await answers.grants_renew(ROOT, m.RenewGrant(grant=grant.id, lifetime="8h"))
    assert renewed.expires is not None
    assert grant.expires is not None
    assert renewed.expires > grant.expires + timedelta(hours=6)
    (revoked,) = await answers.grants_revoke(ROOT, m.RevokeGrants(grants=(grant.id,)))
    assert revoked.revoked is not None
    assert await answers.grants(ROOT, m.ListGrants()) == []
    assert [each.id for each in await answers.grants(ROOT, m.ListGrants(ended=True))] == [grant.id]


# -- servers --------------------------------------------------------------------------------------------------------


async def test_servers_are_added_and_removed(inside: Inside, answers: Answers):
    """File, socket and record are there at once, and gone at once; a second one of the name is refused."""
    added = await answers.servers_add(
        ROOT, m.AddServer(name="git", command=("/bin/git-server",), env={"TOKEN": "secret"})
    )
    assert (added.name, added.state, added.env, added.sessions) == ("git", "ready", ("TOKEN",), 0)
    assert inside.paths.sockets.joinpath("git.sock").is_socket()
    assert "secret" in (inside.paths.servers / "git.toml").read_text()
    with pytest.raises(ConfigurationError, match="there is one of that name"):
        await answers.servers_add(ROOT, m.AddServer(name="git", command=("x",)))
    assert [each.name for each in await answers.servers(ROOT, m.ListServers())] == ["git", "time"]
    removed = await answers.servers_remove(ROOT, m.RemoveServer(name="git"))
    assert removed.name == "git"
    assert not (inside.paths.servers / "git.toml").exists()
    with pytest.raises(NothingToDoError):
        await answers.servers_show(ROOT, m.ShowServer(name="git"))
    rows = query(inside.paths.audit, Filters(kinds=("admin",), server="git"))
    assert [row.record.method for row in rows] == ["server.add", "server.remove"]


async def test_a_server_in_a_file_of_another_name_is_removed_for_good(inside: Inside, answers: Answers):
    """After a restart it is not back."""
    (inside.paths.servers / "odd.toml").write_text(server_text("extra"))
    inside.daemon.reload()
    assert (await answers.servers_show(ROOT, m.ShowServer(name="extra"))).origin.endswith("odd.toml")
    await answers.servers_remove(ROOT, m.RemoveServer(name="extra"))
    assert inside.daemon.reload() == ()


@pytest.mark.parametrize(
    "request_",
    [
        m.AddServer(name="Bad", command=("x",)),
        m.AddServer(name="x"),
        m.AddServer(name="x", transport="http", url="http://example.org"),
        m.AddServer(name="x", command=("x",), run_as="user:root"),
    ],
)
async def test_a_server_that_cannot_be_is_not_added(inside: Inside, answers: Answers, request_: m.AddServer):
    """Nothing is written, opened or recorded."""
    with pytest.raises(ConfigurationError):
        await answers.servers_add(ROOT, request_)
    assert [path.name for path in inside.paths.servers.iterdir()] == ["time.toml"]
    assert list(query(inside.paths.audit, Filters(kinds=("admin",), server=request_.name))) == []


async def test_a_server_whose_socket_is_taken_leaves_no_file(inside: Inside, answers: Answers):
    """A half-added server would come back at the next start."""
    inside.paths.sockets.joinpath("git.sock").write_text("in the way")
    with pytest.raises(ConfigurationError, match="not a socket"):
        await answers.servers_add(ROOT, m.AddServer(name="git", command=("x",)))
    assert not (inside.paths.servers / "git.toml").exists()


async def test_reload_is_recorded_and_told(inside: Inside, answers: Answers):
    """What changed, in words."""
    (inside.paths.servers / "git.toml").write_text(server_text("git"))
    reloaded = await answers.reload(ROOT, m.Reload())
    assert (reloaded.changes, reloaded.generation) == (("server git: open",), 1)


# -- decisions and log ----------------------------------------------------------------------------------------------


async def test_a_decision_is_explained_to_whom_it_concerns(inside: Inside, answers: Answers):
    """With its inputs, clauses and remedies; a decision of another uid does not exist."""
    client, code = await inside.refused()
    answer = await inside.ask(client, "tools/call", {"name": "x"}, 2)
    decision = answer["error"]["data"]["decision"]
    found = await answers.explain(ROOT, m.Explain(decision=decision))
    assert (found.verdict, found.cause, found.method, found.name) == ("deny", "no_grant", "tools/call", "x")
    assert found.inputs["action"] == "call_tool"
    assert found.changes
    for caller, wanted in ((OTHER, decision), (ROOT, "nosuch.1")):
        with pytest.raises(NothingToDoError, match="cannot find the decision"):
            await answers.explain(caller, m.Explain(decision=wanted))
    await answers.approve(ROOT, m.Approve(pending=code, terms=m.Terms(all_tools=True, lifetime="standing")))
    again = await answers.explain(ROOT, m.Explain(decision=decision))
    assert (again.verdict, again.cause) == ("deny", "no_grant")


async def test_why_decides_without_doing(inside: Inside, answers: Answers):
    """Nothing is recorded, pended or used; more than one target is a usage error."""
    size = inside.daemon.audit.head().size
    found = await answers.why(control_caller(pid=os.getpid()), m.Why(server="time", tool="x"))
    assert (found.verdict, found.cause, found.decision) == ("deny", "no_grant", "")
    assert inside.daemon.audit.head().size == size
    assert inside.daemon.approvals.waiting(None) == ()
    with pytest.raises(UsageError):
        await answers.why(ROOT, m.Why(server="time", tool="x", prompt="y"))
    with pytest.raises(NothingToDoError):
        await answers.why(ROOT, m.Why(server="nosuch"))


async def test_the_log_is_read_by_what_is_wanted(inside: Inside, answers: Answers):
    """Tail gives the last, query what matches, each with a limit."""
    client, _ = await inside.refused()
    for number in range(3):
        await inside.ask(client, "tools/call", {"name": f"t{number}"}, number + 2)
    last = await everything(answers.audit_tail(ROOT, m.TailAudit(lines=2)))
    assert [each.name for each in last] == ["t1", "t2"]
    found = await everything(answers.audit_query(ROOT, m.QueryAudit(kind="decision", method="tools/call")))
    assert [each.name for each in found] == ["t0", "t1", "t2"]
    assert found[0].display == inside.daemon.approvals.waiting(None)[0].display
    for wanted, count in (
        (m.QueryAudit(method="tools/call", limit=2), 2),
        (m.QueryAudit(name="t1"), 1),
        (m.QueryAudit(pid=1), 0),
        (m.QueryAudit(cause="no_grant", server="time", verdict="deny"), 4),
        (m.QueryAudit(until=datetime(2020, 1, 1, tzinfo=UTC)), 0),
        (m.QueryAudit(since=datetime(2020, 1, 1, tzinfo=UTC), method="tools/call"), 3),
    ):
        assert len(await everything(answers.audit_query(ROOT, wanted))) == count


async def test_the_log_can_be_followed(inside: Inside, answers: Answers, monkeypatch: pytest.MonkeyPatch):
    """After the last records each new one comes once, in order."""
    monkeypatch.setattr("attestd.daemon.audit_answers.FOLLOW_S", 0.01)
    client, _ = await inside.refused()
    seen: list[str] = []

    async def follow() -> None:
        async for each in answers.audit_tail(ROOT, m.TailAudit(lines=1, follow=True)):
            seen.append(each.name)  # noqa: PERF401 - each is looked at while more come

    following = asyncio.ensure_future(follow())
    await until(lambda: len(seen) == 1)
    for number in range(3):
        await inside.ask(client, "tools/call", {"name": f"t{number}"}, number + 2)
    await until(lambda: len(seen) == 4)
    following.cancel()
    assert seen[1:] == ["t0", "t1", "t2"]


async def test_the_log_is_verified(inside: Inside, answers: Answers):
    """The last word is the result, against the daemon's own head."""
    await inside.refused()
    *_, last = await everything(answers.audit_verify(ROOT, m.VerifyAudit()))
    assert (last.ok, last.records, last.problems) == (True, inside.daemon.audit.head().size, ())
