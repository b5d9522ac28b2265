"""The two probes that other MCP proxies fail, on them and on attestd: W11, a page of a rebinding site calls a tool; W12,
one client reads what another left in the server.

What a peer of this version does is on record in ``PEERS``: a version that no longer fails makes its test fail, and then
its row is to be corrected. The same server stands behind all of them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.attack_backs import HERE, Back, await_true, listening, reachable
from tests.support.attack_channels import Answer, Channel, Http
from tests.support.attack_field import Field, field
from tests.support.http_client import ON_TCP, PIPES, Caller, free_port
from tests.support.npm import MissingError, install, node

SERVER = "ts1-stdio"
FASTMCP = '''\
"""fastmcp's own proxy: fastmcp_proxy.py PORT COMMAND…"""
import sys
from fastmcp.server import create_proxy

servers = {"mcpServers": {"tools": {"command": sys.argv[2], "args": sys.argv[3:]}}}
create_proxy(servers).run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
'''


class Peer(msgspec.Struct, frozen=True):
    """What one proxy does."""

    version: str
    rebound: bool
    """Whether it lets a page of another site call a tool."""
    bleeds: bool
    """Whether a client reads what another one left."""


PEERS = {
    "fastmcp": Peer("4.1.2", rebound=True, bleeds=True),
    "mcp-proxy": Peer("6.7.19", rebound=True, bleeds=True),
    "supergateway": Peer("4.0.0", rebound=True, bleeds=False),
}


def version(name: str, place: Path) -> str:
    """The installed one."""
    if name == "fastmcp":
        return importlib.metadata.version(name)
    return str(json.loads((place / "node_modules" / name / "package.json").read_text(encoding="utf-8"))["version"])


def command(name: str, place: Path, root: Path, port: int, server: tuple[str, ...]) -> list[str]:
    """How a peer is started before a server of standard streams, as its own documentation says."""
    if name == "fastmcp":
        script = root / "fastmcp_proxy.py"
        script.write_text(FASTMCP, encoding="utf-8")
        return [sys.executable, "-W", "ignore", str(script), str(port), *server]
    program = [str(node(place)), str(place / "node_modules" / ".bin" / name)]
    if name == "mcp-proxy":
        return [*program, "--host", "127.0.0.1", "--port", str(port), "--", *server]
    ways = ["--outputTransport", "streamableHttp", "--stateful", "--logLevel", "none"]
    return [*program, "--stdio", " ".join(server), *ways, "--port", str(port)]


@pytest.fixture(scope="module", name="open_field")
def _open_field() -> Iterator[Field]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    try:
        with field(root, (SERVER,)) as made:
            yield made
    except MissingError as error:
        pytest.skip(f"no peers and no server of npm: {error}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def through(name: str, back: Back, root: Path) -> Iterator[tuple[Channel, Channel]]:
    """Two clients of a started peer, past their handshakes."""
    place = install(HERE / "npm", "attacks")
    assert version(name, place) == PEERS[name].version
    port = free_port()
    program = root / "pipes.py"
    program.write_text(PIPES, encoding="utf-8")
    with listening(command(name, place, root, port, back.command)):
        await_true(lambda: reachable(port), f"{name} listens")
        words = [sys.executable, "-u", str(program)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
            caller = Caller(process, "", "")
            pair = [
                Http(caller, ("127.0.0.1", port), f"{name} {who}", "legacy", "/mcp", f"127.0.0.1:{port}")
                for who in ("victim", "other")
            ]
            for channel in pair:
                channel.begin()
            yield pair[0], pair[1]
            assert process.stdin is not None
            process.stdin.close()


def as_a_page(channel: Channel, back: Back, port: int) -> tuple[bool, Answer]:
    """A call as a page of a rebinding site makes it: whether it was executed, and what was said."""
    mark = f"{channel.name} page"
    site = f"evil.example:{port}"
    variant = msgspec.structs.replace(
        channel.proper("echo", text=mark), headers={"host": site, "origin": f"http://{site}"}
    )
    answer = channel.offer(variant)
    return back.noted("echo", mark) == 1, answer


def read_by_another(victim: Channel, other: Channel) -> str:
    """What the other client is told after the victim has left something; the victim has it still."""
    victim.tool("remember", text="the victim's password")
    assert "the victim's password" in str(victim.tool("recall").message)
    return str(other.tool("recall").message["result"]["content"][0]["text"])


@pytest.mark.attack("W11")
@pytest.mark.attack("W12")
@pytest.mark.linux("no attestd stands between")
@pytest.mark.parametrize("name", PEERS)
def test_a_peer(open_field: Field, tmp_path: Path, name: str):
    """Without the control: each of these proxies executes the page's call, and most tell one client about another."""
    back = open_field.backs[SERVER]
    with through(name, back, tmp_path) as (victim, other):
        executed, _ = as_a_page(victim, back, 1)
        told = read_by_another(victim, other)
    assert executed is PEERS[name].rebound
    assert (told == "the victim's password") is PEERS[name].bleeds
    assert told in {"the victim's password", "nothing"}


@pytest.mark.attack("W11")
@pytest.mark.attack("W12")
@pytest.mark.parametrize("front", ["unix-legacy", pytest.param("tcp-legacy", marks=ON_TCP)])
def test_attestd(open_field: Field, front: str):
    """The same two probes: 403 and not executed; another client, and the same program once more, are told nothing."""
    back = open_field.backs[SERVER]
    with open_field.fresh():
        victim, again = (open_field.channel(front, SERVER) for _ in range(2))
        other = open_field.channel(front, SERVER, "other")
        for channel in (victim, again, other):
            channel.begin()
        executed, answer = as_a_page(victim, back, open_field.port)
        assert (executed, answer.status) == (False, 403)
        assert read_by_another(victim, other) == "nothing"
        assert read_by_another(other, again) == "nothing"
