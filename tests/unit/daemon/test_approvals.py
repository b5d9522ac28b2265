"""Acts of a person on grants and waiting requests: first the record, then the row."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.audit.query import Filters, query
from attestd.daemon.approvals import Approver
from attestd.errors import AuditUnavailableError, NothingToDoError, NotPermittedError
from attestd.grants.approve import Options
from tests.support.daemons import ROOT, Inside
from tests.support.waiting import until

STANDING = Options(all_tools=True, lifetime="standing")
SOMEBODY = Approver(uid=77, pid=1, display="somebody", how="clean-chain")


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp)
    yield inside
    await inside.close()


def acts(inside: Inside) -> list[str]:
    """Methods of the administrative records, but for the policy."""
    rows = query(inside.paths.audit, Filters(kinds=("admin",)))
    return [row.record.method for row in rows if row.record.method != "policy.activate"]


async def again(inside: Inside) -> None:
    """Stop and start on the same directories."""
    await inside.daemon.close()
    inside.launcher = type(inside.launcher)()
    inside.daemon = inside.start()


async def test_approving_makes_a_grant_once(inside: Inside):
    """The grant is recorded, in force, and the code is used up."""
    _, code = await inside.refused()
    approvals = inside.daemon.approvals
    grant = approvals.approve(code, STANDING, ROOT)
    assert (grant.object.server, grant.how, grant.approved_by) == ("time", "root", "root")
    assert acts(inside) == ["grant.approve"]
    assert approvals.grant(grant.id, ROOT) == grant
    assert approvals.waiting(None) == ()
    assert approvals.context(code) is None
    with pytest.raises(NotPermittedError):
        approvals.approve(code, STANDING, ROOT)


async def test_without_a_record_nothing_is_granted(inside: Inside, monkeypatch: pytest.MonkeyPatch):
    """A log that cannot be written makes no grant, and the code stays good."""
    _, code = await inside.refused()

    def full(*_: object) -> int:
        raise AuditUnavailableError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(inside.daemon.audit, "append", full)
        with pytest.raises(AuditUnavailableError):
            inside.daemon.approvals.approve(code, STANDING, ROOT)
        assert list(inside.daemon.approvals.store.index) == []
    inside.daemon.approvals.approve(code, STANDING, ROOT)


async def test_a_user_sees_and_decides_only_what_is_that_users(inside: Inside):
    """Another uid finds neither the waiting request nor the grant; both are as if they were not."""
    _, code = await inside.refused()
    approvals = inside.daemon.approvals
    assert approvals.waiting(SOMEBODY.sees) == ()
    with pytest.raises(NotPermittedError):
        approvals.approve(code, STANDING, SOMEBODY)
    grant = approvals.approve(code, STANDING, ROOT)
    for act in (lambda: approvals.grant(grant.id, SOMEBODY), lambda: approvals.revoke((grant.id,), SOMEBODY)):
        with pytest.raises(NothingToDoError):
            act()


async def test_denying_drops_and_denying_always_mutes(inside: Inside):
    """A denied client may ask again and gets another code; one that was denied for good gets none, also after a
    restart.
    """
    client, code = await inside.refused()
    approvals = inside.daemon.approvals
    approvals.deny(code, ROOT, always=False)
    answer = await inside.ask(client, "initialize", {"protocolVersion": "2025-11-25"}, 2)
    second = answer["error"]["data"]["code"]
    assert second != code
    approvals.deny(second, ROOT, always=True)
    answer = await inside.ask(client, "initialize", {"protocolVersion": "2025-11-25"}, 3)
    assert answer["error"]["data"]["code"] is None
    assert answer["error"]["data"]["cause"] == "no_grant"
    assert acts(inside) == ["deny", "deny.always"]
    await again(inside)
    other = await inside.connect()
    answer = await inside.ask(other, "initialize", {"protocolVersion": "2025-11-25"})
    assert answer["error"]["data"]["code"] is None


async def test_revoking_is_all_or_nothing(inside: Inside):
    """One unknown id among them revokes none; each id is revoked once."""
    _, code = await inside.refused()
    approvals = inside.daemon.approvals
    grant = approvals.approve(code, STANDING, ROOT)
    with pytest.raises(NothingToDoError):
        approvals.revoke((grant.id, "g-nosuch"), ROOT)
    assert approvals.grant(grant.id, ROOT)
    assert approvals.revoke((grant.id, grant.id), ROOT) == (grant,)
    with pytest.raises(NothingToDoError):
        approvals.grant(grant.id, ROOT)
    assert acts(inside) == ["grant.approve", "grant.revoke"]


async def test_renewing_changes_the_end(inside: Inside):
    """Another end in time is recorded and in force after a restart."""
    _, code = await inside.refused()
    grant = inside.daemon.approvals.approve(code, Options(all_tools=True, lifetime="1h"), ROOT)
    renewed = inside.daemon.approvals.renew(grant.id, "8h", ROOT)
    assert grant.lifetime.until_ns is not None
    assert renewed.lifetime.until_ns is not None
    assert renewed.lifetime.until_ns > grant.lifetime.until_ns
    await again(inside)
    assert inside.daemon.approvals.grant(grant.id, ROOT).lifetime == renewed.lifetime


async def test_a_grant_for_one_use_is_recorded_as_used_up(inside: Inside):
    """The use is in the log before the row, and the second use is refused."""
    _, code = await inside.refused()
    approvals = inside.daemon.approvals
    grant = approvals.approve(code, Options(tools=("x",), lifetime="once"), ROOT)
    approvals.use((grant.id,), "s1", 1)
    assert acts(inside)[-1] == "grant.consume"
    with pytest.raises(NothingToDoError):
        approvals.use((grant.id,), "s1", 2)


async def test_what_is_in_force_after_a_start_is_what_the_log_says(inside: Inside):
    """A row that was put into or changed in the file, and one that was taken out, are refused and reported."""
    _, code = await inside.refused()
    grant = inside.daemon.approvals.approve(code, Options(tools=("x",), lifetime="standing"), ROOT)
    await inside.daemon.close()
    with contextlib.closing(sqlite3.connect(inside.paths.store)) as database, database:
        database.execute("UPDATE grants SET id = 'g-forged' WHERE id = ?", (grant.id,))
    inside.launcher = type(inside.launcher)()
    inside.daemon = inside.start()
    assert list(inside.daemon.approvals.store.index) == []
    said = " ".join(text for _, text in inside.daemon.troubles.seen(None))
    assert "g-forged is refused" in said
    assert f"{grant.id} is in the audit log but not in the store" in said
    assert any(row.record.id == "grants.mismatch" for row in query(inside.paths.audit, Filters(kinds=("log",))))


async def test_waiting_requests_do_not_survive_a_restart_in_user_mode(inside: Inside):
    """A stored one could be forged by the processes that it would let in."""
    await inside.refused()
    inside.daemon.approvals.flush()
    await again(inside)
    assert inside.daemon.approvals.waiting(None) == ()


async def test_a_waiting_request_remembers_its_evidence_and_its_claimed_name(inside: Inside):
    """The chain can be drawn while it is remembered; the name is what a live session says of itself."""
    client, code = await inside.refused()
    approvals = inside.daemon.approvals
    context = approvals.context(code)
    assert context is not None
    assert context.chain[0].argv[0] == "python3"
    (entry,) = approvals.waiting(None)
    assert approvals.client_name(entry) is None
    client.close()
    await until(lambda: inside.daemon.sessions == {})
    assert approvals.client_name(entry) is None


async def test_an_approver_is_counted_by_uid():
    """A new process is no new guesser, and root sees everything."""
    assert Approver(uid=5, pid=1, display="", how="").key == Approver(uid=5, pid=2, display="", how="").key
    assert (ROOT.sees, SOMEBODY.sees) == (None, 77)
