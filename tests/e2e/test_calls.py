"""Whole calls through a real daemon, with a client that speaks the wire itself."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.instance import cause, running


def test_refused_then_approved_then_answered(short_tmp: Path):
    """A client without a grant is refused with a code, and after approval the same connection is served."""
    with running(short_tmp) as instance, instance.client() as client:
        refusal = client.initialize()
        assert cause(refusal) == "no_grant"
        assert refusal["error"]["code"] == -31403
        data = refusal["error"]["data"]
        assert data["server"] == "echo"
        assert data["method"] == "initialize"
        assert data["retry"] is True
        assert data["code"] in refusal["error"]["message"]
        assert instance.executed() == []
        instance.approve(data["code"])
        assert client.initialize()["result"]["serverInfo"]["name"] == "echo"
        answer = client.call("echo", hello="world")
        assert "world" in answer["result"]["content"][0]["text"]
        assert [call["name"] for call in instance.executed()] == ["echo"]


def test_only_the_named_tool(short_tmp: Path):
    """A grant for one tool serves that tool, hides the others from the list and refuses them with a code."""
    with running(short_tmp) as instance:
        instance.grant(None, "--tool", "pid")
        with instance.client() as client:
            assert "result" in client.initialize()
            assert [tool["name"] for tool in client.request("tools/list")["result"]["tools"]] == ["pid"]
            assert "result" in client.call("pid")
            refusal = client.call("echo")
            assert cause(refusal) == "out_of_scope"
            instance.approve(refusal["error"]["data"]["code"], "--tool", "echo")
            assert "result" in client.call("echo")
            assert cause(client.request("resources/read", {"uri": "file:///a"})) == "out_of_scope"
        assert [call["name"] for call in instance.executed()] == ["pid", "echo"]


def test_revoked_while_open(short_tmp: Path):
    """A revoked grant ends what it permitted on the open connection at once."""
    with running(short_tmp) as instance:
        grant = instance.grant()
        with instance.client() as client:
            client.initialize()
            assert "result" in client.call("echo")
            instance.ctl("grants", "revoke", grant["id"])
            assert cause(client.call("echo")) == "no_grant"
        assert len(instance.executed()) == 1


def test_a_once_grant_serves_one_call(short_tmp: Path):
    """A grant for one use is used up by one call."""
    with running(short_tmp) as instance:
        instance.grant(None, "--tool", "echo", "--for", "once")
        with instance.client() as client:
            client.initialize()
            assert "result" in client.call("echo")
            assert cause(client.call("echo")) == "no_grant"
        assert len(instance.executed()) == 1


def test_grants_survive_a_restart(short_tmp: Path):
    """What was approved is in force after the daemon was stopped and started again."""
    with running(short_tmp) as instance:
        instance.grant()
        assert instance.stop() == 0
        instance.start()
        with instance.client() as client:
            assert "result" in client.initialize()
            assert "result" in client.call("echo")


def test_each_connection_has_its_own_server(short_tmp: Path):
    """Two connections of one client talk to two processes, and both end with their connections."""
    with running(short_tmp) as instance:
        instance.grant()
        with instance.client() as one, instance.client() as two:
            one.initialize()
            two.initialize()
            pids = [int(c.call("pid")["result"]["content"][0]["text"]) for c in (one, two)]
            assert pids[0] != pids[1]
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_shared_server_serves_many_by_mapped_ids(short_tmp: Path):
    """Callers of a shared server meet one process, each gets its own answers, and equal ids do not collide."""
    with running(short_tmp) as instance:
        instance.server("both", shared=True)
        instance.ctl("reload")
        instance.grant(server="both")
        with instance.client(server="both") as one, instance.client(server="both") as two:
            one.initialize()
            two.initialize()
            pids = {c.call("pid")["result"]["content"][0]["text"] for c in (one, two)}
            assert len(pids) == 1
            assert '"1"' in one.call("echo", who="1")["result"]["content"][0]["text"]
            assert '"2"' in two.call("echo", who="2")["result"]["content"][0]["text"]


def test_a_server_that_dies_is_said_to_have(short_tmp: Path):
    """The outstanding call is refused with the server's end, and the connection closes as it would without attestd."""
    with running(short_tmp) as instance:
        instance.grant()
        with instance.client() as client:
            client.initialize()
            answer = client.call("die")
            assert cause(answer) == "server_unavailable"
            assert client.receive() is None


def test_a_large_answer_arrives_whole(short_tmp: Path):
    """Ten megabytes of result pass without loss."""
    with running(short_tmp) as instance:
        instance.grant()
        with instance.client() as client:
            client.initialize()
            assert len(client.call("big", size=10_000_000)["result"]["content"][0]["text"]) == 10_000_000
