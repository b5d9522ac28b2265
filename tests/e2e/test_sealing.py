"""Sealing an SDK server over HTTP on loopback that was there before attestd.

Real server, real SDK clients and real daemon, all in a network namespace of the test's own.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_client import calling
from tests.support.http_desk import ASKS, EVERY, HttpServer, serving
from tests.support.instance import SETTLE_S, Instance, cause, running
from tests.support.network import own_network

pytestmark = [pytest.mark.root, pytest.mark.linux("sealed ports")]
OTHER = """
import os, socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
try:
    sock.setsockopt(socket.SOL_SOCKET, 36, 1)
except OSError as error:
    print(os.strerror(error.errno))
body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
head = f"POST /mcp HTTP/1.1\\r\\nHost: 127.0.0.1:{sys.argv[1]}\\r\\nContent-Type: application/json\\r\\n"
head += f"Accept: application/json, text/event-stream\\r\\nConnection: close\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
sock.sendall(head.encode() + body)
said = b""
while data := sock.recv(1 << 16):
    said += data
print(said.partition(b"\\r\\n\\r\\n")[2].decode())
"""
SUPPORT = Path(__file__).parents[1] / "support"


class Host:
    """A namespace with a server of each kind, a daemon, and clients that know only the servers' own URLs."""

    def __init__(self, instance: Instance, servers: dict[str, HttpServer]) -> None:
        self.instance = instance
        self.servers = servers
        self.client = instance.script("sdk_client.py", (SUPPORT / "sdk_client.py").read_text(encoding="utf-8"))

    def port(self, server: str) -> int:
        """Where the server itself listens."""
        return int(self.servers[server].port)

    def run(self, server: str, mode: str, *steps: Any, address: str = "127.0.0.1") -> list[Any]:
        """What an SDK client with the server's own URL hears."""
        sse = server == "old"
        url = f"{'sse+' if sse else ''}http://{address}:{self.port(server)}/{'sse' if sse else 'mcp'}"
        words = [sys.executable, "-W", "ignore", str(self.client), "mcp", mode, url, "", server]
        done = subprocess.run(
            [*words, *map(json.dumps, steps)],
            env=self.instance.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def served(self, server: str, mode: str = "auto", **keys: Any) -> bool:
        """Whether a call of the SDK client is done."""
        said = self.run(server, mode, ["call", "add", {"a": 2, "b": 3}], **keys)
        return said == [{"ok": "5"}]

    def answers(self, server: str = "new") -> str:
        """Who answers a plain request of this process: ``server``, ``attestd``, or nobody."""
        try:
            with socket.create_connection(("127.0.0.1", self.port(server)), 5) as sock:
                sock.settimeout(10)
                sock.sendall(f"GET /none HTTP/1.1\r\nHost: 127.0.0.1:{self.port(server)}\r\n\r\n".encode())
                said = sock.recv(1 << 16)
        except (ConnectionRefusedError, ConnectionResetError):
            return "nobody"
        return "server" if b"server: uvicorn" in said.lower() else "attestd" if said else "nobody"

    def seal(self, *words: str) -> str:
        """Seal the server ``new``; what becomes of direct connections."""
        (sealed,) = self.instance.ctl("servers", "seal", "new", *words)
        return str(sealed["sealed"])

    def sealed(self) -> dict[str, str]:
        """What ``status`` says."""
        return {each["server"]: each["state"] for each in self.instance.ctl("status")[0]["seals"]}

    def kill(self) -> None:
        """SIGKILL to the daemon."""
        assert self.instance.process is not None
        self.instance.process.kill()
        self.instance.process.wait()
        self.instance.process = None


@contextlib.contextmanager
def hosting(*names: str) -> Iterator[Host]:
    """A host with the servers of these names."""
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with own_network(), ExitStack() as stack:
        kinds = {"new": ("http", "mcp"), "old": ("sse", "sse")}
        servers = {name: stack.enter_context(serving(kinds[name][0], "0")) for name in names}
        instance = stack.enter_context(running(root))
        for name, server in servers.items():
            kind, path = kinds[name]
            url = f"http://127.0.0.1:{server.port}/{path}"
            instance.server(name, text=f'[server]\nname = "{name}"\ntransport = "{kind}"\nurl = "{url}"\n')
        instance.ctl("reload")
        yield Host(instance, servers)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module", name="everything")
def _everything() -> Iterator[Host]:
    with hosting("new", "old") as host:
        yield host


@pytest.fixture(name="host")
def _host(everything: Host) -> Iterator[Host]:
    yield everything
    for server in everything.sealed():
        everything.instance.ctl("servers", "unseal", server)


@pytest.fixture(name="fresh")
def _fresh() -> Iterator[Host]:
    """For what ends the daemon."""
    with hosting("new") as host:
        yield host


def approve(host: Host, server: str, mode: str) -> None:
    """Let the SDK client be refused once, and approve it."""
    (refused,) = host.run(server, mode)
    assert refused["data"]["cause"] == "no_grant"
    host.instance.approve(refused["data"]["code"], *EVERY, *ASKS)


@pytest.mark.parametrize(("server", "mode"), [("new", "auto"), ("old", "legacy")])
def test_the_urls_of_clients_stay_as_they_are(host: Host, server: str, mode: str):
    """Before: anybody is served. Sealed: who holds nothing is refused by attestd, and who is granted is served, at the
    very same URL. Unsealed: anybody again. Both acts are recorded."""
    assert host.served(server, mode)
    (sealed,) = host.instance.ctl("servers", "seal", server)
    assert sealed["sealed"] == "redirected"
    assert host.sealed() == {server: "redirected"}
    approve(host, server, mode)
    steps = [["call", "add", {"a": 2, "b": 3}], ["progress"], ["call", "greet", {}], ["size", "big", {"size": 500_000}]]
    said = host.run(server, mode, *steps)
    assert [each.get("ok") for each in said] == ["5", [[1.0, 2.0, "half"]], "hello Ada", 500_000]
    with calling(host.instance, ("127.0.0.1", host.port(server)), server=server, mark="stranger") as stranger:
        assert cause(stranger.request("tools/list", path="/mcp").json) == "no_grant"
    host.instance.ctl("servers", "unseal", server)
    assert host.sealed() == {}
    assert host.served(server, mode)
    acts = [each["method"] for each in host.instance.records(kind="admin", server=server)]
    assert [act for act in acts if "seal" in act] == ["server.seal", "server.unseal"]


def test_what_connected_before_is_cut(host: Host):
    """A direct connection that is older than the seal ends with the next thing it says."""
    with socket.create_connection(("127.0.0.1", host.port("new")), 5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        host.seal()
        sock.sendall(b"Host: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


def test_refusing_instead_of_redirecting(host: Host):
    """Nobody connects, on any address of this machine, but attestd itself, which serves on its own sockets."""
    assert host.answers() == "server"
    assert host.seal("--refuse") == "refused"
    assert host.answers() == "nobody"
    with calling(host.instance, str(host.instance.socket("new")), server="new", mark="by socket") as caller:
        code = caller.initialize().json["error"]["data"]["code"]
        host.instance.approve(code, "--all-tools")
        caller.initialize()
        assert caller.session


def test_a_killed_daemon_leaves_the_server_sealed(fresh: Host):
    """No program reaches it, not even at the port of attestd's dead listener; doctor says how to undo it; at no moment
    of the next start does the server itself answer; then clients are served again."""
    fresh.seal()
    assert fresh.answers() == "attestd"
    fresh.kill()
    assert fresh.answers() == "nobody"
    check = next(each for each in fresh.instance.ctl("doctor", code=1) if each["name"] == "seal new")
    assert "attestd unseal --all" in check["remedy"]
    fresh.instance.start(wait=False)
    seen = set()
    deadline = time.monotonic() + 30
    while "attestd" not in seen and time.monotonic() < deadline:
        seen.add(fresh.answers())
    fresh.instance.await_started()
    assert seen <= {"nobody", "attestd"}
    assert fresh.answers() == "attestd"
    assert fresh.sealed() == {"new": "redirected"}
    check = next(each for each in fresh.instance.ctl("doctor") if each["name"] == "seal new")
    assert (check["status"], "attestctl servers unseal new" in check["detail"]) == ("ok", True)


def test_root_opens_without_the_daemon(fresh: Host):
    """The command that doctor names works when nobody is there, and says what it opened; once."""
    fresh.seal()
    fresh.kill()
    done = fresh.instance.run("attestd", "unseal", "--user")
    assert (done.returncode, done.stdout) == (0, f"open to everybody: new (port {fresh.port('new')})\n")
    assert fresh.answers() == "server"
    assert fresh.instance.run("attestd", "unseal", "--all").returncode == 9


def test_an_orderly_stop_opens_and_the_next_start_seals(fresh: Host):
    """Where only root can stop the daemon, its stop undoes the seals; they are kept for the next start."""
    fresh.seal()
    fresh.instance.stop()
    assert fresh.answers() == "server"
    fresh.instance.start()
    assert fresh.sealed() == {"new": "redirected"}
    assert fresh.answers() == "attestd"


def test_what_is_configured_to_stay(fresh: Host):
    """``on_stop = "stay"`` leaves the server sealed."""
    fresh.seal()
    fresh.instance.settings["seal"] = {"on_stop": "stay"}
    fresh.instance.write_settings()
    fresh.instance.ctl("reload")
    fresh.instance.stop()
    del fresh.instance.settings["seal"]
    assert fresh.answers() == "nobody"


def test_flushed_rules_are_put_back(host: Host):
    """What another program of root takes from nftables is back soon, and that is told."""
    host.seal()
    assert host.instance.run("attestd", "unseal", "--all").returncode == 0
    deadline = time.monotonic() + 30
    while host.answers() == "server" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert host.answers() == "attestd"
    assert host.instance.records(method="seals.restore")


def test_a_sealed_server_is_not_removed(host: Host):
    """Nobody could reach it any more."""
    host.seal()
    assert host.instance.run("attestctl", "servers", "remove", "new").returncode == 3
    assert host.sealed() == {"new": "redirected"}


def test_a_program_of_another_user(host: Host):
    """It is attested as itself, and cannot mark its packets as attestd's."""
    host.seal()
    program = Path("/tmp") / f"{host.instance.root.name}-other.py"
    program.write_text(OTHER, encoding="utf-8")
    try:
        time.sleep(SETTLE_S)
        done = subprocess.run(
            ["/usr/bin/python3", str(program), str(host.port("new"))],
            user=60_001,
            group=60_001,
            extra_groups=[],
            env={},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    finally:
        program.unlink()
    marked, said = done.stdout.split("\n", 1)
    assert marked == "Operation not permitted"
    assert json.loads(said)["error"]["data"]["cause"] in {"no_grant", "unattestable"}
    (refused,) = [each for each in host.instance.records(uid=60_001) if each["kind"] == "decision"][:1]
    assert refused["verdict"] == "deny"
