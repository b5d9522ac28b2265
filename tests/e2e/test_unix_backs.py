"""Servers that listen on a Unix socket of their own: who listens is attested before a byte is passed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import ECHO, Instance, cause, running

SUPPORT = Path(__file__).parents[1] / "support"


@contextlib.contextmanager
def listening(instance: Instance, name: str, *prefix: str) -> Iterator[Path]:
    """The echo server behind a socket of its own; ``prefix`` starts it as somebody else."""
    path = instance.root / f"{name}.listen"
    script = instance.script("echo_server.py", ECHO)
    words = [
        *prefix,
        sys.executable,
        str(SUPPORT / "unix_server.py"),
        str(path),
        sys.executable,
        str(script),
        str(instance.calls),
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        yield path
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


@pytest.fixture(scope="module", name="instance")
def _instance() -> Iterator[Instance]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    root.chmod(0o755)
    with running(root) as instance:
        yield instance
    shutil.rmtree(root, ignore_errors=True)


def register(instance: Instance, name: str, path: Path, peer: str = "") -> None:
    """A server file with this peer table, loaded and granted."""
    text = f'[server]\nname = "{name}"\ntransport = "unix"\nsocket = "{path}"\n'
    instance.server(name, text=text + (f"[server.peer]\n{peer}\n" if peer else ""))
    instance.ctl("reload")
    instance.grant(server=name)


def test_a_server_on_its_own_socket_is_served(instance: Instance):
    """Calls reach it, its image is in the audit log and in ``servers show``, and its end is told."""
    with listening(instance, "good") as path:
        register(instance, "good", path)
        with instance.client(server="good") as client:
            assert "result" in client.initialize()
            assert "result" in client.call("echo", a=1)
            assert cause(client.call("die")) == "server_unavailable"
            assert client.receive() is None
        shown = instance.ctl("servers", "show", "good")[0]
        assert shown["path"] == str(path)
        assert "python" in shown["detail"]
        assert "unix_server.py" in shown["detail"]
        assert any(r["kind"] == "hop" for r in instance.records(server="good", method="server"))


def test_a_server_that_is_not_there(instance: Instance):
    """The refusal names the socket and the reason; once it listens, the same connection is served."""
    path = instance.root / "late.listen"
    register(instance, "late", path)
    with instance.client(server="late") as client:
        refusal = client.initialize()
        assert cause(refusal) == "server_unavailable"
        assert str(path) in refusal["error"]["message"]
        with listening(instance, "late"):
            assert "result" in client.initialize()
            client.process.kill()


def test_a_stranger_on_the_socket_gets_nothing(instance: Instance):
    """A program other than the one that the registry names is refused as untrusted, and hears not one byte."""
    with listening(instance, "stranger") as path:
        register(instance, "stranger", path, f'exe_sha256 = "{"00" * 32}"')
        before = len(instance.executed())
        with instance.client(server="stranger") as client:
            refusal = client.initialize()
            assert cause(refusal) == "server_untrusted"
            assert f"expected {'00' * 32}" in refusal["error"]["message"]
        assert len(instance.executed()) == before


@pytest.mark.root
def test_a_server_of_another_user_gets_nothing(instance: Instance):
    """Another uid on the socket is untrusted unless the registry names it."""
    inside = instance.root / "theirs"
    inside.mkdir()
    inside.chmod(0o777)
    python = shutil.which("python3", path="/usr/bin")
    assert python is not None
    path = inside / "their.sock"
    words = ["setpriv", "--reuid", "60001", "--regid", "60001", "--clear-groups", python, "-c", THEIRS, str(path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        register(instance, "theirs", path)
        with instance.client(server="theirs") as client:
            refusal = client.initialize()
            assert cause(refusal) == "server_untrusted"
            assert "uid 60001 listens" in refusal["error"]["message"]
        register_again(instance, "theirs", path, "uid = 60001")
        with instance.client(server="theirs") as client:
            assert client.initialize()["result"] == {}
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def register_again(instance: Instance, name: str, path: Path, peer: str) -> None:
    """The same server with another peer table; its grants stay."""
    text = f'[server]\nname = "{name}"\ntransport = "unix"\nsocket = "{path}"\n[server.peer]\n{peer}\n'
    instance.server(name, text=text)
    assert instance.ctl("reload")[0]["changes"]


THEIRS = """
import json, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
s.listen()
print("ready", flush=True)
while True:
    c, _ = s.accept()
    for line in c.makefile():
        m = json.loads(line)
        c.sendall(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": {}}).encode() + b"\\n")
"""
