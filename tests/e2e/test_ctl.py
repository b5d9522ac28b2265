"""attestctl against a running daemon: the documented keys, and answers that agree with what happened."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import SCRIPTS, Instance, cause, on_the_machine, running

IDENTITY = {"spiffe_id", "program", "chain", "instance", "level", "recorded", "reasons", "display"}


@pytest.fixture(scope="module", name="instance")
def _instance() -> Iterator[Instance]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as instance:
        instance.grant(None, "--tool", "echo")
        with instance.client() as client:
            client.initialize()
        yield instance
    shutil.rmtree(root, ignore_errors=True)


def test_status(instance: Instance):
    """Every documented key, and values that are true."""
    (status,) = instance.ctl("status")
    assert {"mode", "version", "pid", "uptime_s", "recorder", "servers", "sessions", "policy", "audit"} <= set(status)
    assert instance.process is not None
    assert (status["mode"], status["pid"]) == ("user", instance.process.pid)
    assert set(status["recorder"]) >= {"state", "reason"}
    assert {"name", "transport", "state"} <= set(status["servers"][0])
    assert {"generation", "mode"} <= set(status["policy"])
    assert len(status["audit"]["head"]) == 64
    assert status["audit"]["records"] > 0
    assert status["not_protected"]


def test_inspect(instance: Instance):
    """The chain, peer first, with every documented key; ``--pid`` shows another process of the same user."""
    (found,) = instance.ctl("inspect", "--self")
    assert {"peer", "chain", "accountable", "identity"} <= set(found)
    assert set(found["peer"]) == {"pid", "uid", "gid"}
    for link in found["chain"]:
        assert {"pid", "start", "uid", "class", "exe", "script", "origin"} <= set(link)
        assert link["exe"] is None or {"path", "sha256", "owner_uid", "writable", "deleted"} <= set(link["exe"])
        assert link["script"] is None or {"kind", "path", "sha256"} <= set(link["script"])
    assert found["chain"][0]["script"]["path"] == str(instance.scripts / "attestctl")
    assert os.getpid() in {link["pid"] for link in found["chain"][1:3]}
    assert set(found["identity"]) >= IDENTITY
    (ours,) = instance.ctl("inspect", "--pid", str(os.getpid()))
    assert ours["chain"][0]["pid"] == os.getpid()
    assert instance.run("attestctl", "inspect", "--pid", "999999999").returncode == 9


def test_pending(instance: Instance):
    """A refused client is there with what it wanted and how often; a second refusal is counted, not repeated."""
    script = instance.talker("pending", "pending.py")
    for _ in range(2):
        with instance.client(script) as client:
            code = client.initialize()["error"]["data"]["code"]
    (entry,) = [each for each in instance.pending() if each["code"] == code]
    assert {"code", "caller", "server", "wants", "cause", "first_seen", "last_seen"} <= set(entry)
    assert set(entry["caller"]) >= IDENTITY
    assert entry["wants"] == [{"method": "initialize", "name": "", "count": 2}]
    assert (entry["server"], entry["cause"]) == ("echo", "no_grant")
    assert instance.ctl("deny", code)[0]["code"] == code
    assert code not in [each["code"] for each in instance.pending()]
    assert instance.run("attestctl", "deny", code).returncode in (4, 9)


def test_grants(instance: Instance):
    """Listed with every documented key, shown, renewed, counted, revoked."""
    script = instance.talker("grants", "grants.py")
    grant = instance.grant(script, "--tool", "echo", "--for", "1h")
    (listed,) = [each for each in instance.ctl("grants", "list") if each["id"] == grant["id"]]
    keys = {"id", "subject", "object", "min_level", "lifetime", "expires", "hits", "last_used", "approved_by", "origin"}
    assert keys <= set(listed)
    assert (listed["lifetime"], listed["hits"], listed["object"]["tools"]) == ("until", 0, ["echo"])
    with instance.client(script) as client:
        client.initialize()
        client.call("echo")
        client.call("echo")
    assert instance.ctl("grants", "show", grant["id"])[0]["hits"] == 2
    (renewed,) = instance.ctl("grants", "renew", grant["id"], "--for", "8h")
    assert renewed["expires"] > listed["expires"]
    assert instance.ctl("grants", "revoke", grant["id"])[0]["id"] == grant["id"]
    assert grant["id"] not in [each["id"] for each in instance.ctl("grants", "list")]
    assert instance.run("attestctl", "grants", "show", grant["id"]).returncode == 9


def test_audit_verify(instance: Instance):
    """The running log verifies, with every documented key."""
    (found,) = [each for each in instance.ctl("audit", "verify") if "ok" in each]
    assert {"ok", "records", "segments", "head", "problems"} <= set(found)
    assert found["ok"] is True
    assert found["problems"] == []
    assert found["records"] > 0


def test_audit_query(instance: Instance):
    """Records are found by what was decided."""
    with instance.client() as client:
        client.initialize()
        refused = client.call("big")["error"]["data"]
    found = instance.ctl("audit", "query", "--cause", "out_of_scope", "--server", "echo")
    assert refused["decision"] in [each["id"] for each in found]


def test_explain_agrees_with_the_decision(instance: Instance):
    """A permit names its grant, a deny its cause and what would change it; what is not there exits 9."""
    with instance.client() as client:
        client.initialize()
        client.call("echo")
        refused = client.call("pid")["error"]["data"]
    permitted = instance.records(kind="decision", method="tools/call", verdict="permit")[-1]
    (found,) = instance.ctl("explain", permitted["id"])
    assert (found["verdict"], found["name"]) == ("permit", "echo")
    assert found["grants"]
    assert found["policies"] == permitted["policies"]
    (found,) = instance.ctl("explain", refused["decision"])
    assert (found["verdict"], found["cause"], found["name"]) == ("deny", "out_of_scope", "pid")
    assert any("pid" in each for each in found["changes"])
    assert found["caller"]["program"] == refused["caller"]["program"]
    assert instance.run("attestctl", "explain", "nosuch.1").returncode == 9


def test_why_agrees_with_what_then_happens(instance: Instance):
    """For a live client, ``why`` says beforehand what the call then gets, and leaves no trace of its own."""
    with instance.client() as client:
        client.initialize()
        before = instance.ctl("grants", "list")
        for tool, verdict in (("echo", "permit"), ("pid", "deny")):
            pid = str(client.process.pid)
            (found,) = instance.ctl("why", "--pid", pid, "--server", "echo", "--tool", tool)
            assert found["verdict"] == verdict
            answer = client.call(tool)
            assert ("result" in answer) is (verdict == "permit")
            assert found["cause"] == cause(answer)
        assert [g["id"] for g in before] == [g["id"] for g in instance.ctl("grants", "list")]
    (ours,) = instance.ctl("why", "--server", "echo")
    assert (ours["verdict"], ours["method"]) == ("deny", "initialize")
    assert instance.run("attestctl", "why", "--server", "nosuch").returncode == 9
    assert instance.run("attestctl", "why", "--server", "echo", "--tool", "a", "--prompt", "b").returncode == 2


def test_ps_shows_live_sessions(instance: Instance):
    """Caller, server, calls and denials while the session lives, and nothing afterwards."""
    with instance.client() as client:
        client.initialize()
        client.call("echo")
        client.call("pid")
        (session,) = [each for each in instance.ctl("ps") if each["pid"] == client.process.pid]
        assert (session["server"], session["calls"], session["denials"]) == ("echo", 2, 1)
        assert set(session["caller"]) >= IDENTITY
        assert session["ancestors"][-1]["pid"] == client.process.pid
        pid = client.process.pid
    deadline = time.monotonic() + 10
    while any(each["pid"] == pid for each in instance.ctl("ps")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_servers_add_and_remove(instance: Instance):
    """A server is added with its file and its socket at once, and removed with its sessions."""
    clock = str(SCRIPTS / "mcp-server-time")
    words = ("servers", "add", "clock", "--env", "A=1", "--json", "--", clock, "--local-timezone", "UTC")
    added = json.loads(instance.run("attestctl", *words).stdout)
    assert (added["name"], added["state"], added["command"][0]) == ("clock", "ready", clock)
    assert added["env"] == ["A"]
    assert instance.socket("clock").exists()
    assert (instance.config / "servers.d" / "clock.toml").exists()
    assert "clock" in [each["name"] for each in instance.ctl("servers", "list")]
    assert instance.run("attestctl", "servers", "add", "clock", "--", clock).returncode == 3
    assert instance.ctl("reload")[0]["changes"] == []
    instance.grant(server="clock")
    with instance.client(server="clock") as client:
        assert "result" in client.initialize()
        instance.ctl("servers", "remove", "clock")
        assert client.receive() is None
    assert not instance.socket("clock").exists()
    assert not (instance.config / "servers.d" / "clock.toml").exists()
    assert instance.run("attestctl", "servers", "show", "clock").returncode == 9


def test_reload_takes_what_changed_and_leaves_the_rest(instance: Instance):
    """A server whose file changed is restarted, one that did not goes on; a new policy counts at once."""
    instance.server("other")
    assert instance.ctl("reload")[0]["changes"] == ["server other: open"]
    with instance.client() as client:
        client.initialize()
        instance.server("other", shared=True)
        assert instance.ctl("reload")[0]["changes"] == ["server other: changed", "server other: open"]
        assert "result" in client.call("echo")
        policy = instance.config / "policy.d"
        policy.mkdir(exist_ok=True)
        (policy / "no.cedar").write_text(
            '@id("no-echo")\n@message("echo is closed today")\nforbid (principal, action == Action::"call_tool", resource)'
            ' when { resource.name == "echo" };\n'
        )
        before = instance.ctl("status")[0]["policy"]["generation"]
        try:
            (reloaded,) = instance.ctl("reload")
            assert reloaded["changes"] == ["policy: changed"]
            assert reloaded["generation"] > before
            refused = client.call("echo")
            assert cause(refused) == "policy_forbid"
            assert "echo is closed today" in refused["error"]["message"]
            (found,) = instance.ctl("explain", refused["error"]["data"]["decision"])
            assert any("no-echo" in each["id"] for each in found["clauses"])
        finally:
            shutil.rmtree(policy)
            instance.ctl("reload")
        assert "result" in client.call("echo")
    (instance.config / "servers.d" / "other.toml").unlink()
    assert instance.ctl("reload")[0]["changes"] == ["server other: removed"]


def test_doctor(instance: Instance):
    """Lines with a status each; nothing fails here, and the approver of the test is warned about."""
    result = instance.run("attestctl", "doctor", "--json")
    assert result.returncode == 0, result.stdout
    found = {each["name"]: each for each in instance.ctl("doctor")}
    assert {each["status"] for each in found.values()} <= {"ok", "warn"}
    assert found["approvers"]["status"] == "warn"
    assert found["socket echo"]["status"] == "ok"
    assert {"disk", "clock", "sqlite", "policy", "audit", "recorder"} <= set(found)


def test_nobody_answers(short_tmp: Path):
    """Without a daemon: exit 5, what was tried, and how to start it."""
    result = on_the_machine(short_tmp).run("attestctl", "status")
    assert result.returncode == 5
    assert result.stderr.startswith("error: ")
    assert "attestd run --user" in result.stderr
