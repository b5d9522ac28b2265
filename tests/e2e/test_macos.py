"""The daemon, attestctl and the shim of macOS, run for real on a Mac that mirrors this machine (docs/macos.md).

What other tests say of both machines runs on both (``tests.support.machine``); here is what only a Mac does, or does otherwise.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.instance import Instance, cause
from tests.support.mac_instance import MacInstance

pytestmark = pytest.mark.darwin("what only a Mac does, or does otherwise")

SDK_CLIENT = """
import asyncio, json, sys
from mcp import Client, MCPError, StdioServerParameters

async def main(shim, socket):
    try:
        async with Client(StdioServerParameters(command=shim, args=["sdk", "--socket", socket]), mode="legacy") as client:
            print(json.dumps({"tools": len((await client.list_tools()).tools)}))
            print(json.dumps({"said": (await client.call_tool("echo", {"a": 1})).content[0].text}))
    except BaseException as error:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, MCPError):
            raise
        print(json.dumps(error.error.data))

asyncio.run(main(*sys.argv[1:]))
"""
RELAYS = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.stdin.readline().encode())
print(s.recv(65536).decode(), end="", flush=True)
words = sys.stdin.readline()
if os.fork() == 0:
    s.sendall(words.encode())
    os._exit(0)
os.wait()
print(s.recv(65536).decode(), end="", flush=True)
"""
"""A granted program whose child writes the second line."""
EXECUTES = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.stdin.readline().encode())
print(s.recv(65536).decode(), end="", flush=True)
sys.stdin.readline()
os.set_inheritable(s.fileno(), True)
os.execv(sys.executable, [sys.executable, sys.argv[2], str(s.fileno())])
"""
OTHER = """
import socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
s.sendall(b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"from":"other"}}}\\n')
print(s.recv(65536).decode(), end="", flush=True)
"""
LISTEN_AS_ATTESTD = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print("ready", flush=True)
time.sleep(60)
"""
HTTP = """
import http.client, json, socket, sys
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

def ask(message):
    connection.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0", **message}), headers)
    answer = connection.getresponse()
    headers["Mcp-Session-Id"] = answer.headers.get("Mcp-Session-Id", headers.get("Mcp-Session-Id", ""))
    return answer.read().decode()

hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
first = ask({"id": 1, "method": "initialize", "params": hello})
if '"error"' in first:
    print(first)
else:
    ask({"method": "notifications/initialized"})
    print(ask({"id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": {"over": "http"}}}))
"""
"""A client of Streamable HTTP on a Unix socket, without an SDK."""
HELLO = (
    '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    '"clientInfo":{"name":"t","version":"1"}}}\n'
)
CALL = '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"from":"child"}}}\n'


@pytest.fixture(scope="module", name="instance")
def _instance() -> Iterator[MacInstance]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    instance = MacInstance(root)
    for name in ("echo", "sdk"):
        instance.server(name)
    instance.server("confined", network=False)
    instance.start()
    yield instance
    if instance.process is not None:
        instance.stop()
    shutil.rmtree(root, ignore_errors=True)


def sdk(instance: Instance, script: Path) -> list[dict[str, Any]]:
    """What an SDK client says, which starts the shim."""
    words = [sys.executable, str(script), str(instance.scripts / "attestd-connect"), str(instance.socket("sdk"))]
    done = subprocess.run(words, env=instance.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_sdk_client_through_the_shim(instance: MacInstance):
    """It is refused, waits in ``pending``, is approved, and its call reaches a real server; another program's does not."""
    client = instance.script("sdk_client.py", SDK_CLIENT)
    (refused,) = sdk(instance, client)
    (entry,) = [each for each in instance.pending() if each["code"] == refused["code"]]
    assert (entry["cause"], refused["cause"]) == ("no_grant", "no_grant")
    assert [link["class"] for link in entry["chain"]][:2] == ["relay", "host"]
    grant = instance.approve(refused["code"])
    assert grant["how"] in ("root", "approver")
    assert sdk(instance, client) == [{"tools": 5}, {"said": '{"a": 1}'}]
    (refused,) = sdk(instance, instance.script("stranger.py", SDK_CLIENT + "# somebody else\n"))
    assert refused["cause"] == "no_grant"
    assert [call["arguments"] for call in instance.executed()] == [{"a": 1}]
    (verified,) = instance.ctl("audit", "verify")
    assert (verified["ok"], verified["problems"]) == (True, [])
    assert instance.records(kind="decision", verdict="permit", server="sdk", method="tools/call")


def test_it_says_what_it_is(instance: MacInstance):
    """Status and doctor tell of macOS's room; no finding of doctor about what attestation needs is bad."""
    (status,) = instance.ctl("status")
    assert (status["mode"], status["recorder"]["reason"]) == ("user", "macOS has no recorder")
    assert any("session of its own" in text for text in status["not_protected"])
    found = {check["name"]: check["status"] for check in instance.ctl("doctor", code=0)}
    assert {found[f"kernel {name}"] for name in ("peer_token", "unique_ids", "process_events")} == {"ok"}
    assert found["kernel message_writer"] == "warn"


@contextlib.contextmanager
def approved(instance: Instance, script: Path, *more: str) -> Iterator[tuple[Callable[[str], None], IO[str]]]:
    """A client that was refused and then approved, on the same connection: how to speak to it, and what it says."""
    with subprocess.Popen(
        [sys.executable, str(script), str(instance.socket()), *more],
        env=instance.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        def say(text: str) -> None:
            assert process.stdin is not None
            process.stdin.write(text)
            process.stdin.flush()

        say(HELLO)
        instance.approve(json.loads(process.stdout.readline())["error"]["data"]["code"])
        yield say, process.stdout


def test_another_writer_is_refused(instance: MacInstance):
    """A child that writes on its parent's connection is the last user of the socket, and the session ends unserved."""
    granted = instance.script("relays.py", RELAYS)
    with approved(instance, granted) as (say, said):
        say(CALL)
        assert cause(json.loads(said.readline())) == "writer_mismatch"
    assert not [call for call in instance.executed() if call["arguments"].get("from") == "child"]


def test_another_image_is_refused(instance: MacInstance):
    """A granted process that executes another program keeps its socket and its pid, and is nobody any more."""
    script, other = instance.script("executes.py", EXECUTES), instance.script("other.py", OTHER)
    with approved(instance, script, str(other)) as (say, heard):
        say("\n")
        said = heard.read()
    assert "result" not in said
    assert not [call for call in instance.executed() if call["arguments"].get("from") == "other"]
    assert instance.records(kind="session", cause="image_changed", server="echo")


def test_http_on_a_unix_socket(instance: MacInstance):
    """The first byte decides the framing here too: refused, approved, then served over HTTP."""
    script = instance.script("over_http.py", HTTP)

    def said() -> str:
        words = [sys.executable, str(script), str(instance.socket())]
        done = subprocess.run(words, env=instance.environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    instance.approve(json.loads(said())["error"]["data"]["code"])
    assert '"result"' in said()
    assert instance.executed()[-1]["arguments"] == {"over": "http"}


def test_what_cannot_be_enforced_is_refused(instance: MacInstance):
    """A server that must have no network is not started with one, and the refusal says which key it is."""
    grant = instance.grant(server="confined")
    assert grant["object"]["server"] == "confined"
    with instance.client(server="confined") as client:
        refusal = client.initialize()
    assert cause(refusal) == "server_unavailable"
    assert "cannot enforce network of its server file" in refusal["error"]["message"]


def test_no_loopback_port(instance: MacInstance):
    """A reload that wants one is refused with the reason, and the old configuration goes on."""
    instance.settings["listen"] = {"port": 18765}
    instance.write_settings()
    done = instance.run("attestctl", "reload")
    del instance.settings["listen"]
    instance.write_settings()
    assert done.returncode == 3
    assert "macOS does not tell whose a TCP connection is" in done.stderr
    assert instance.ctl("status")


def test_the_daemon_proves_itself(instance: MacInstance, short_tmp: Path):
    """A program of the same user that listens in the daemon's place is neither asked by attestctl nor fed by the shim."""
    runtime = short_tmp / "attestd"
    (runtime / "mcp").mkdir(parents=True, mode=0o700)
    runtime.chmod(0o700)
    for program, path, words in (
        ("attestctl", runtime / "control.sock", ["--socket", str(runtime / "control.sock"), "status"]),
        ("attestd-connect", runtime / "mcp" / "echo.sock", ["echo", "--socket", str(runtime / "mcp" / "echo.sock")]),
    ):
        with subprocess.Popen([sys.executable, "-c", LISTEN_AS_ATTESTD, str(path)], stdout=subprocess.PIPE) as impostor:
            assert impostor.stdout is not None
            impostor.stdout.readline()
            done = instance.run(program, *words, stdin="" if program == "attestd-connect" else None)
            assert (done.returncode, str(impostor.pid) in done.stderr) == (5, True), done.stderr
            impostor.kill()


def test_servers_end_with_a_killed_daemon(short_tmp: Path):
    """SIGKILL of the daemon: its server is gone within moments, and the next daemon serves the same grants."""
    instance = MacInstance(short_tmp)
    instance.server()
    instance.start()
    instance.grant()
    with instance.client() as client:
        assert "result" in client.initialize()
        pid = int(client.call("pid")["result"]["content"][0]["text"])
        assert instance.process is not None
        instance.process.kill()
        instance.process.wait()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}/cwd").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not Path(f"/proc/{pid}/cwd").exists()
    instance.start()
    with instance.client() as client:
        assert "result" in client.initialize()
    assert instance.ctl("audit", "verify")[0]["ok"]
    assert instance.stop() == 0


def test_launchds_control_socket(short_tmp: Path):
    """Who connects before the daemon runs waits in launchd's socket and is answered; the socket outlives the daemon."""
    runtime = short_tmp / "r" / "attestd"
    runtime.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as launchds:
        launchds.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        launchds.bind(str(runtime / "control.sock"))
        launchds.listen()
        instance = MacInstance(short_tmp, activated={"control": [launchds.fileno()]})
        with socket.socket(socket.AF_UNIX) as early:
            early.connect(str(instance.control))
            instance.start(wait=False)
            try:
                early.settimeout(60)
                assert b'"nonce"' in early.recv(4096)
            finally:
                assert instance.stop() == 0
        assert instance.control.is_socket()


def test_a_socket_of_launchd_that_is_elsewhere(short_tmp: Path):
    """The daemon does not start with a control socket that is not at its place."""
    with socket.socket(socket.AF_UNIX) as launchds:
        launchds.bind(str(short_tmp / "elsewhere.sock"))
        launchds.listen()
        instance = MacInstance(short_tmp, activated={"control": [launchds.fileno()]})
        instance.start(wait=False)
        assert instance.process is not None
        assert instance.process.wait(60) == 3
        assert "cannot adopt the socket of the service manager" in instance.log()
        assert "launchctl print" in instance.log()
