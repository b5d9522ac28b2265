"""The composition root: starting, sessions, reloading, stopping, in one process with a kernel of one process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.audit.query import Filters, query
from attestd.daemon.opening import caller_body
from attestd.errors import (
    AuditUnavailableError,
    Cause,
    ConfigurationError,
    EvidenceError,
    NothingToDoError,
)
from attestd.evidence.protocol import Collected
from attestd.wire.model import ListKind
from tests.support.daemons import ROOT, Inside, server_text
from tests.support.waiting import until


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp)
    yield inside
    await inside.close()


def records(inside: Inside, **wanted: object) -> list[object]:
    """Audit records with these values."""
    rows = query(inside.paths.audit, Filters())
    return [r.record for r in rows if all(getattr(r.record, k) == v for k, v in wanted.items())]


async def test_a_start_is_recorded_and_listens(inside: Inside):
    """The log begins with the start and the policy, the directories are private, the socket is there."""
    assert [r.id for r in records(inside, kind="log")] == ["start"]  # type: ignore[attr-defined]
    assert records(inside, method="policy.activate")
    assert inside.daemon.generation == 1
    for path in (inside.paths.state, inside.paths.runtime, inside.paths.sockets, inside.paths.config):
        assert path.stat().st_mode & 0o777 == 0o700
    assert inside.paths.sockets.joinpath("time.sock").is_socket()


async def test_a_refused_caller_has_a_session_and_starts_nothing(inside: Inside):
    """Who holds nothing is told so with a code; the same connection is served after approval."""
    client, code = await inside.refused()
    assert inside.launcher.commands == []
    assert [p.code for p in inside.daemon.approvals.waiting(None)] == [code]
    from attestd.grants.approve import Options

    inside.daemon.approvals.approve(code, Options(all_tools=True, lifetime="standing"), ROOT)
    await inside.handshake(client)
    (command,) = inside.launcher.commands
    assert command.argv == ("/bin/server", "--flag")
    assert inside.daemon.fronts["time"].image is not None


async def test_a_session_is_recorded_from_open_to_close(inside: Inside):
    """Open, decisions and close carry one session and one caller; nothing stays open."""
    client = await inside.granted()
    await client.send({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "echo"}})
    far = inside.launcher.backends[0].far
    await far.message()
    await far.send({"jsonrpc": "2.0", "id": 5, "result": {"content": []}})
    await client.message()
    client.close()
    await until(lambda: inside.daemon.sessions == {})
    await until(lambda: inside.launcher.backends[0].stopped == 1)
    opened, closed = records(inside, kind="session")
    assert (opened.method, closed.method) == ("open", "close")  # type: ignore[attr-defined]
    assert opened.session == closed.session  # type: ignore[attr-defined]
    assert closed.detail["calls"] == 2  # type: ignore[attr-defined]
    (decision,) = records(inside, kind="decision", name="echo")
    assert decision.caller == opened.caller  # type: ignore[attr-defined]
    (caller,) = query(inside.paths.audit, Filters(kinds=("caller",)))
    assert b'"evidence"' in caller.record.body
    assert inside.kernel.open == 0


async def test_a_caller_that_cannot_be_attested_is_recorded(inside: Inside):
    """The refusal at the door is in the log with its cause."""
    inside.kernel.failure = EvidenceError(Cause.INCONSISTENT, "it kept changing")
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(inside.paths.sockets / "time.sock"))
        sock.setblocking(False)
        data = await asyncio.get_running_loop().sock_recv(sock, 10_000)
    assert b'"cause":"inconsistent"' in data
    (refused,) = records(inside, kind="session")
    assert (refused.verdict, refused.cause) == ("deny", "inconsistent")  # type: ignore[attr-defined]
    inside.kernel.failure = None


async def test_a_full_disk_opens_no_session(inside: Inside, monkeypatch: pytest.MonkeyPatch):
    """Without a record of it there is no session: the client is told why, nothing leaks, status shows the trouble."""

    def full(*_: object) -> int:
        raise AuditUnavailableError("cannot append to the audit log: no space left on device")

    monkeypatch.setattr(inside.daemon.audit, "append", full)
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(inside.paths.sockets / "time.sock"))
        sock.send(b"\n")
        sock.setblocking(False)
        told = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 10_000), 5)
        assert b'"cause":"audit_unavailable"' in told
        assert b"no space left on device" in told
    assert inside.daemon.sessions == {}
    assert any("no space left" in text for _, text in inside.daemon.troubles.seen(None))
    monkeypatch.undo()


async def test_a_second_daemon_is_refused_and_changes_nothing(inside: Inside):
    """The lock of the log keeps it out."""
    with pytest.raises(ConfigurationError, match="is writing to it"):
        inside.start()
    await inside.refused()


async def test_a_start_that_fails_leaves_nothing_locked(short_tmp: Path):
    """After a socket path in use the next start succeeds on the same directories."""
    inside = Inside(short_tmp)
    await inside.daemon.close()
    blocker = inside.paths.sockets / "time.sock"
    blocker.write_text("in the way")
    with pytest.raises(ConfigurationError, match="not a socket"):
        inside.start()
    blocker.unlink()
    inside.daemon = inside.start()
    await inside.close()


async def test_tools_are_learned_from_the_servers_own_list(inside: Inside):
    """Hints of a tool enter decisions as the server stated them; others have the defaults."""
    tools = [{"name": "read", "annotations": {"readOnlyHint": True}}, {"name": "write"}]
    inside.daemon.learn("time", 5, ListKind.TOOLS, {"tools": tools})
    inside.daemon.learn("time", 5, ListKind.PROMPTS, {"prompts": []})
    assert inside.daemon.tools["time", 5]["read"].read_only
    assert inside.daemon.tools["time", 5]["write"].destructive


async def test_a_server_that_cannot_start_is_trouble(inside: Inside):
    """The client is told, the front is marked, and ``status`` can show it."""
    from attestd.launch.protocol import LaunchError

    client = await inside.granted()
    client.close()
    await until(lambda: inside.daemon.sessions == {})
    inside.launcher.failure = LaunchError("cannot execute /bin/server: no such file")
    again = await inside.connect()
    answer = await inside.ask(again, "initialize", {"protocolVersion": "2025-11-25"})
    assert answer["error"]["data"]["cause"] == "server_unavailable"
    assert "no such file" in inside.daemon.fronts["time"].trouble
    assert "no such file" in inside.daemon.troubles.seen(None)[-1][1]
    inside.launcher.failure = None
    await inside.handshake(again)
    assert inside.daemon.fronts["time"].trouble == ""


# -- upkeep and stopping --------------------------------------------------------------------------------------------


async def test_a_sweep_ends_sessions_whose_process_changed(inside: Inside, monkeypatch: pytest.MonkeyPatch):
    """Within the sweep's time an exec ends the session without a message."""
    monkeypatch.setattr("attestd.daemon.app.SWEEP_S", 0.01)
    client = await inside.granted()
    inside.kernel.watches[0].found = Cause.IMAGE_CHANGED
    assert await client.message() is None
    await until(lambda: inside.daemon.sessions == {})
    assert records(inside, method="close", cause="image_changed")


async def test_closing_ends_everything_in_order(short_tmp: Path):
    """Clients get an end, servers are closed, the log ends with the stop, and a next daemon can start."""
    inside = Inside(short_tmp)
    client = await inside.granted()
    await inside.daemon.close()
    assert await client.message() is None
    assert inside.launcher.closed
    assert records(inside, kind="log")[-1].id == "stop"  # type: ignore[attr-defined]
    assert not inside.paths.sockets.joinpath("time.sock").exists()
    inside.launcher = type(inside.launcher)()
    inside.daemon = inside.start()
    await inside.close()


async def test_a_server_that_is_not_there_is_said_to_be_so(inside: Inside):
    """Closing what is not open is refused with a hint."""
    with pytest.raises(NothingToDoError, match="cannot find the server 'nosuch'"):
        inside.daemon.close_front("nosuch", Cause.SHUTTING_DOWN, "")


async def test_a_shared_server_has_one_back_end(short_tmp: Path):
    """Two sessions of a shared server meet one process, which outlives them."""
    inside = Inside(short_tmp, server_text("both", shared=True))
    client, code = await inside.refused("both")
    from attestd.grants.approve import Options

    inside.daemon.approvals.approve(code, Options(all_tools=True, lifetime="standing"), ROOT)
    await client.send({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}})
    await until(lambda: len(inside.launcher.backends) == 1)
    far = inside.launcher.backends[0].far
    await far.message()
    result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
    await far.send({"jsonrpc": "2.0", "id": 0, "result": result})
    assert (await client.message())["result"] == result
    other = await inside.connect("both")
    assert (await inside.ask(other, "initialize", {"protocolVersion": "2025-11-25"}))["result"] == result
    client.close()
    other.close()
    await until(lambda: inside.daemon.sessions == {})
    assert len(inside.launcher.backends) == 1
    assert inside.launcher.backends[0].stopped == 0
    await inside.close()
    assert inside.launcher.backends[0].stopped == 1


async def test_the_callers_body_holds_what_was_found(inside: Inside):
    """Evidence and result are both in it, as JSON."""
    client = await inside.connect()
    info = next(iter(inside.daemon.sessions.values()))
    import msgspec

    from attestd.mediation import Attested

    collected: Collected = Collected(evidence=inside.kernel.evidence, watch=inside.kernel.watches[0])
    body = caller_body(Attested(evidence=collected.evidence, result=info.caller.result, watch=collected.watch))
    assert set(msgspec.json.decode(body)) == {"result", "evidence"}
    del client


async def test_who_changes_before_the_first_byte_is_let_go(inside: Inside):
    """Attested and silent, then another program: the connection ends and the log says why."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(inside.paths.sockets / "time.sock"))
    sock.setblocking(False)
    silent = inside.daemon.fronts["time"].silent
    await until(lambda: bool(silent._silent))
    inside.kernel.watches[-1].found = Cause.IMAGE_CHANGED
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), 5) == b""
    (record,) = records(inside, kind="session", cause="image_changed")
    assert (record.method, record.verdict) == ("open", "deny")  # type: ignore[attr-defined]
    assert not inside.daemon.sessions
    sock.close()
