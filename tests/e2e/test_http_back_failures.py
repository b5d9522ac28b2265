"""HTTP back ends that die, come back, are replaced by a stranger, lie in TLS, or point elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.http_desk import HttpDesk, HttpServer, serving
from tests.support.instance import Client, Instance, cause, running
from tests.support.wire_attacks import until

pytestmark = pytest.mark.linux("TCP peers: who listens is attested")

KINDS = {"stateful": ("http", "0"), "stateless": ("http", "0", "stateless", "json"), "sse": ("sse", "0")}

SMALL = '''
"""A small HTTP server: answers every POST with what its first argument says. {mark}"""
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(sys.argv[3], "a") as log:
            log.write(json.dumps([message.get("method"), dict(self.headers)]) + "\\n")
        if sys.argv[1].startswith("redirect="):
            self.send_response(307)
            self.send_header("Location", sys.argv[1][9:])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = {"tools": []}
        if message.get("method") == "initialize":
            content = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        body = json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "result": content}).encode()
        self.send_response(200 if "id" in message else 202)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send_error(405)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
'''


@pytest.fixture(scope="module", name="desk")
def _desk() -> Iterator[HttpDesk]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as instance:
        yield HttpDesk(instance)
    shutil.rmtree(root, ignore_errors=True)


def small(desk: HttpDesk, mark: str, answer: str, port: str = "0") -> HttpServer:
    """A running small server; another mark makes another program."""
    program = desk.instance.script(f"small{mark}.py", SMALL.replace("{mark}", mark))
    return HttpServer(answer, port, str(desk.instance.root / f"heard{mark}"), program=program)


def heard(desk: HttpDesk, mark: str) -> list[tuple[str, dict[str, str]]]:
    """What reached a small server: methods and headers."""
    path = desk.instance.root / f"heard{mark}"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def granted(desk: HttpDesk, name: str, url: str, transport: str = "http", peer: str = "", **keys: object) -> None:
    """A registered server that the plain client may use."""
    desk.write(name, url, transport=transport, peer=peer, **keys)
    desk.instance.grant(None, "--all-tools", server=name)


@contextmanager
def connected(instance: Instance, server: str) -> Iterator[Client]:
    """A legacy client after its handshake."""
    with instance.client(server=server) as client:
        answer = client.initialize()
        assert "result" in answer, answer
        yield client


def text(answer: dict[str, object]) -> str:
    """The text of a call's result."""
    return answer["result"]["content"][0]["text"]  # type: ignore[index]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_killed_and_comes_back(desk: HttpDesk, kind: str):
    """A call under way fails and must not be repeated, one that never left may be; then the same session goes on, and
    the client has not noticed anything else."""
    words = KINDS[kind]
    path = "sse" if words[0] == "sse" else "mcp"
    begun = desk.instance.root / f"begun-{kind}"
    with serving(*words, env={**os.environ, "BEGUN": str(begun)}) as server:
        granted(desk, kind, f"http://127.0.0.1:{server.port}/{path}", transport=words[0])
        with connected(desk.instance, kind) as client:
            assert text(client.call("add", a=1, b=2)) == "3"
            client.send(
                {
                    "jsonrpc": "2.0",
                    "id": "slow",
                    "method": "tools/call",
                    "params": {"name": "slow", "arguments": {"seconds": 60}},
                }
            )
            until(begun.exists, "call at the server")
            server.kill()
            lost = client.answer("slow")
            assert cause(lost) == "server_unavailable"
            assert lost["error"]["data"]["retry"] is False
            assert "it may have been done" in lost["error"]["message"]
            unsent = client.call("add", a=1, b=2)
            assert cause(unsent) == "server_unavailable"
            assert unsent["error"]["data"]["retry"] is True
            server.start(server.port)
            again = client.call("add", a=2, b=2)
            while cause(again) == "server_unavailable" and again["error"]["data"]["retry"]:
                time.sleep(0.1)
                again = client.call("add", a=2, b=2)
            assert text(again) == "4"


def test_a_stranger_on_the_port(desk: HttpDesk):
    """Another program that takes the port of a server that ended hears not one byte, from old and new sessions, until
    a person accepts it."""
    first = small(desk, "first", "ok")
    other = None
    try:
        granted(desk, "taken", f"http://127.0.0.1:{first.port}/mcp")
        with connected(desk.instance, "taken") as client:
            first.kill()
            other = small(desk, "other", "ok", first.port)
            refused = client.request("tools/list")
            assert cause(refused) == "server_untrusted"
            assert refused["error"]["data"]["retry"] is False
            with desk.instance.client(server="taken") as late:
                assert cause(late.initialize()) == "server_untrusted"
            assert heard(desk, "other") == []
            shown = desk.instance.ctl("servers", "show", "taken")[0]
            assert (shown["state"], "smallother.py" in shown["detail"]) == ("failed", True)
            desk.instance.ctl("servers", "trust", "taken")
            desk.instance.ctl("servers", "trust", "taken", code=9)
            assert client.request("tools/list")["result"] == {"tools": []}
        records = desk.instance.records(server="taken", method="server.pin")
        assert len(records) == 2
    finally:
        for each in (first, other):
            if each is not None and each.process.poll() is None:
                each.kill()


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:{port}/mcp", "https://127.0.0.1:{own}/mcp", "//localhost:{own}/mcp"]
)
def test_a_redirect_to_another_origin(desk: HttpDesk, place: str):
    """Refused with the reason; the token does not go there."""
    elsewhere = small(desk, "elsewhere", "ok")
    mark = f"pointing{abs(hash(place)) % 1000}"
    own = small(desk, mark, "redirect=" + place.replace("{port}", elsewhere.port).replace("{own}", "1"))
    try:
        granted(desk, mark, f"http://127.0.0.1:{own.port}/mcp")
        with desk.instance.client(server=mark) as client:
            refused = client.initialize()
        assert cause(refused) == "server_unavailable"
        assert "another origin" in refused["error"]["message"]
        assert heard(desk, "elsewhere") == []
    finally:
        elsewhere.kill()
        own.kill()


def test_secrets_go_to_the_server_and_nowhere_else(desk: HttpDesk):
    """The operator's token and header arrive; neither is in a refusal, the audit log, or what the tools show."""
    instance = desk.instance
    files = {}
    for name, secret in (("token", "tok-4711"), ("key", "key-4712")):
        path = instance.root / name
        path.write_text(secret + "\n")
        path.chmod(0o600)
        files[name] = str(path)
    server = small(desk, "secret", "ok")
    try:
        url = f"http://127.0.0.1:{server.port}/mcp"
        words = ["--token-file", files["token"], "--header", f"X-Api-Key={files['key']}"]
        instance.ctl("servers", "add", "secret", "--url", url, *words)
        instance.grant(None, "--all-tools", server="secret")
        with connected(instance, "secret") as client:
            assert "result" in client.request("tools/list")
        method, headers = heard(desk, "secret")[0]
        assert method == "initialize"
        assert (headers["Authorization"], headers["X-Api-Key"]) == ("Bearer tok-4711", "key-4712")
        assert headers["Accept-Encoding"] == "identity"
        shown = instance.run("attestctl", "servers", "show", "secret", "--json").stdout
        assert url in shown
        everything = (
            shown + instance.log() + json.dumps(instance.records()) + instance.run("attestctl", "doctor").stdout
        )
        state = b"".join(path.read_bytes() for path in instance.state.rglob("*") if path.is_file())
        for secret in ("tok-4711", "key-4712"):
            assert secret not in everything
            assert secret.encode() not in state
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("name", "certificate", "trusted", "fine"),
    [
        ("good", {}, True, True),
        ("unknown", {}, False, False),
        ("own", {"own": True}, True, False),
        ("expired", {"days": -1}, True, False),
        ("misnamed", {"address": "127.0.0.2"}, True, False),
    ],
)
def test_tls(desk: HttpDesk, name: str, certificate: dict[str, object], trusted: bool, fine: bool):
    """Only a valid certificate for the very address, by an authority that the registry or the system names."""
    root = desk.instance.root
    authority = Authority(root, f"authority {name}")
    path = authority.server(f"{name}.example", **certificate)  # type: ignore[arg-type]
    with serving("http", "0", "json", f"tls={path}") as server:
        keys = {"ca_file": str(authority.path)} if trusted else {}
        granted(desk, name, f"https://127.0.0.1:{server.port}/mcp", **keys)
        with desk.instance.client(server=name) as client:
            answer = client.initialize()
            if fine:
                assert answer["result"]["serverInfo"]["name"] == "everything"
                assert text(client.call("add", a=1, b=2)) == "3"
            else:
                assert cause(answer) == "server_untrusted"
                assert "cannot trust 127.0.0.1" in answer["error"]["message"]


def test_commands(desk: HttpDesk):
    """``servers add --url`` takes what the file takes, refuses what it refuses, and says why."""
    instance = desk.instance
    shown = instance.ctl("servers", "add", "far", "--url", "https://mcp.example.invalid/mcp")[0]
    assert (shown["transport"], shown["url"]) == ("http", "https://mcp.example.invalid/mcp")
    shown = instance.ctl("servers", "add", "old", "--url", "http://localhost:1/sse", "--transport", "sse")[0]
    assert shown["transport"] == "sse"
    refused = instance.run("attestctl", "servers", "add", "plain", "--url", "http://mcp.example.invalid/mcp")
    assert refused.returncode == 3
    assert "expected https, or http to 127.0.0.1" in refused.stderr
    instance.grant(None, "--all-tools", server="far")
    with instance.client(server="far") as client:
        answer = client.initialize()
    assert cause(answer) == "server_unavailable"
    assert "cannot connect to mcp.example.invalid" in answer["error"]["message"]
    checked = instance.run("attestd", "check-config", "--user")
    assert checked.returncode == 0, checked.stderr
    for name in ("far", "old"):
        instance.ctl("servers", "remove", name)
