"""C3: edit of the grant store, the audit log and the policy files by the user: detected, in user mode."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance, cause, running

pytestmark = pytest.mark.attack("C3")


@pytest.fixture(name="instance")
def _instance() -> Iterator[Instance]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


def widen(instance: Instance, *, digest: bool) -> bytes:
    """Rewrite the grant for the tool ``pid`` to the tool ``big``, with the digest of the row if told; its new body."""
    with contextlib.closing(sqlite3.connect(instance.state / "grants.db")) as store, store:
        ((body,),) = store.execute("SELECT body FROM grants").fetchall()
        assert body.count(b"pid") >= 1
        wider = bytes(body).replace(b"pid", b"big")
        store.execute("UPDATE grants SET body = ?", (wider,))
        if digest:
            store.execute("UPDATE grants SET digest = ?", (hashlib.sha256(wider).digest(),))
        store.execute("DELETE FROM pending")
    with contextlib.closing(sqlite3.connect(instance.state / "grants.db")) as store:
        ((body,),) = store.execute("SELECT body FROM grants").fetchall()
    return bytes(body)


@pytest.mark.parametrize("digest", [False, True])
def test_a_widened_grant_is_refused(instance: Instance, digest: bool):
    """A grant for one tool, rewritten on disk to another tool: the file alone would be believed; the log refuses it."""
    instance.grant(None, "--tool", "pid")
    instance.stop()
    assert b"big" in widen(instance, digest=digest)
    instance.start()
    with instance.client() as client:
        client.initialize()
        assert cause(client.call("big", size=1)) == "no_grant"
        assert cause(client.call("pid")) == "no_grant"
    assert instance.records(id="grants.mismatch")
    assert any("is refused" in each["message"] for each in instance.ctl("status")[0]["errors"])
    assert instance.executed() == []


def test_a_copied_grant_is_refused(instance: Instance):
    """A store of another instance, put in place of this one: none of its grants was recorded here."""
    second = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    try:
        with running(second) as other:
            other.grant()
        instance.stop()
        for name in ("grants.db", "grants.db-wal", "grants.db-shm"):
            (instance.state / name).unlink(missing_ok=True)
            if (other.state / name).exists():
                shutil.copy(other.state / name, instance.state / name)
    finally:
        shutil.rmtree(second, ignore_errors=True)
    instance.start()
    with instance.client() as client:
        assert cause(client.initialize()) == "no_grant"
    assert instance.records(id="grants.mismatch")


def test_a_revoked_grant_does_not_come_back(instance: Instance):
    """The store as it was before the revocation, put back: the log knows that the grant has ended."""
    grant = instance.grant()
    instance.stop()
    kept = {p.name: p.read_bytes() for p in instance.state.glob("grants.db*")}
    instance.start()
    instance.ctl("grants", "revoke", grant["id"])
    instance.stop()
    for path in instance.state.glob("grants.db*"):
        path.unlink()
    for name, data in kept.items():
        (instance.state / name).write_bytes(data)
        (instance.state / name).chmod(0o600)
    instance.start()
    with instance.client() as client:
        assert cause(client.initialize()) == "no_grant"
    assert instance.records(id="grants.mismatch")


def test_an_emptied_store_is_noticed(instance: Instance):
    """A store without its grants: nothing is served, and the loss is recorded."""
    instance.grant()
    instance.stop()
    for path in instance.state.glob("grants.db*"):
        path.unlink()
    instance.start()
    with instance.client() as client:
        assert cause(client.initialize()) == "no_grant"
    assert any("not in the store" in each["message"] for each in instance.ctl("status")[0]["errors"])


def test_an_edited_audit_log_stops_the_start(instance: Instance):
    """A log that is not what was written is not continued: exit 7, and the record is named."""
    instance.grant()
    instance.stop()
    segment = max((instance.state / "audit").glob("*.seg"), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    result = instance.run("attestd", "run", "--user")
    assert result.returncode == 7
    assert "cannot trust the audit log at record" in result.stderr


def test_an_edited_policy_is_on_record(instance: Instance):
    """A policy file takes effect when it is loaded, and then its digest is recorded; a broken one changes nothing."""
    instance.grant()
    before = instance.records(method="policy.activate")
    policies = instance.config / "policy.d"
    policies.mkdir(exist_ok=True)
    policy = policies / "mine.cedar"
    policy.write_text('@id("nothing")\nforbid (principal, action == Action::"call_tool", resource);\n')
    with instance.client() as client:
        client.initialize()
        assert "result" in client.call("echo")
        assert instance.records(method="policy.activate") == before
        instance.ctl("reload")
        assert cause(client.call("echo")) == "policy_forbid"
        after = instance.records(method="policy.activate")
        assert len(after) == len(before) + 1
        assert after[-1]["id"] != before[-1]["id"]
        policy.write_text("permit (principal, action, resource)")
        assert instance.run("attestctl", "reload").returncode == 6
        assert cause(client.call("echo")) == "policy_forbid"
        assert instance.records(method="policy.activate") == after
