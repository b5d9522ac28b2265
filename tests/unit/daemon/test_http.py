"""The daemon's HTTP side: first bytes, the port, what ends with what."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.errors import ConfigurationError
from tests.support.daemons import Inside
from tests.support.http_client import free_port
from tests.support.http_inside import Web
from tests.support.streams import Far
from tests.support.waiting import until

HELLO = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp)
    yield inside
    await inside.close()


def web(inside: Inside) -> Web:
    """An HTTP client on the socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(inside.paths.sockets / "time.sock"))
    inside.clients.append(Far(sock))
    return Web(inside.clients[-1], "localhost")


async def test_lines_and_http_on_one_socket(inside: Inside):
    """The first byte decides; both are refused in their own framing, and sessions are recorded alike."""
    client, code = await inside.refused()
    answer = await web(inside).ask(HELLO)
    assert answer.status == 200
    assert answer.json["error"]["data"]["code"] == code
    assert client is not None


async def test_http_with_a_grant(inside: Inside):
    """A session of its own; its connection may end and the session goes on."""
    await inside.granted()
    one = web(inside)
    before = len(inside.launcher.backends)
    await one.post(HELLO)
    await until(lambda: len(inside.launcher.backends) > before)
    far = inside.launcher.backends[-1].far
    await far.message()
    await far.send(
        {"jsonrpc": "2.0", "id": 0, "result": {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}}
    )
    session = (await one.response()).headers["mcp-session-id"]
    one.far.close()
    two = web(inside)
    assert (await two.ask(None, method="DELETE", mcp_session_id=session)).status == 200
    assert (await two.ask(None, method="DELETE", mcp_session_id=session)).status == 404


async def test_the_silent_end_with_their_server(inside: Inside):
    """A connection that never said anything is let go."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(inside.paths.sockets / "time.sock"))
    sock.setblocking(False)
    with sock:
        await until(lambda: bool(inside.daemon.fronts["time"].silent._silent))
        inside.daemon._close_fronts()
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), 5) == b""
    assert inside.kernel.open == 0


async def test_the_port_follows_the_configuration(inside: Inside):
    """Opened, moved and closed by a reload; a taken one changes nothing."""
    first, second = free_port(), free_port()
    http = inside.daemon.http
    for port in (first, second, second):
        inside.paths.config_file.write_text(f"[listen]\nport = {port}\n", encoding="utf-8")
        inside.daemon.reload()
        with socket.create_connection(("127.0.0.1", port)):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        inside.paths.config_file.write_text(f"[listen]\nport = {taken.getsockname()[1]}\n", encoding="utf-8")
        with pytest.raises(ConfigurationError):
            inside.daemon.reload()
    assert http._port == second
    http.listen(0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", second))
