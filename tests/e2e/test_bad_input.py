"""Bad input of every kind: each has a clear error and its exit code, loses nothing, and leaves the others undisturbed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.instance import Client, Instance, cause, on_the_machine, running

MIB = 1 << 20
TROUBLE = '''\
"""Servers that are no good: dies at once, floods one of its streams, never answers, ends in the middle of a call."""
import json, os, sys, time

kind = sys.argv[1]
if kind == "dies":
    sys.exit("config.yaml: no such file")
if kind == "garbage":
    os.write(1, b"Listening on port 8000\\n" * 5)
if kind == "flood":
    while True:
        os.write(1, b"nonsense " * 100 + b"\\n")
if kind == "endless":
    while True:
        os.write(1, b"x" * 65536)
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if kind == "hangs":
        continue
    if kind == "stderr":
        os.write(2, b"warning: something\\n" * 500_000)
    result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": kind, "version": "1"}}
    if message["method"] == "tools/call":
        name = message["params"]["name"]
        if name == "half":
            os.write(1, b'{"jsonrpc":"2.0","id":')
            os._exit(4)
        if name == "twice":
            os.write(1, b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"content":[]}}\\n' % message["id"])
            continue
        result = {"content": []}
    os.write(1, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode() + b"\\n")
'''
KINDS = ("dies", "garbage", "flood", "endless", "hangs", "stderr", "ends")


@pytest.fixture(scope="module", name="instance")
def _instance() -> Iterator[Instance]:
    """One daemon with every kind of server; each is granted to the plain client."""
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root, "echo") as instance:
        script = instance.script("trouble.py", TROUBLE)
        for kind in KINDS:
            instance.server(kind, command=[sys.executable, str(script), kind])
        instance.server("absent", command=["/nowhere/mcp-server-absent"])
        instance.ctl("reload")
        for server in ("echo", *KINDS, "absent"):
            instance.grant(server=server)
        with instance.client() as client:  # the launcher starts with the first server
            client.initialize()
        yield instance
    shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def neighbour(instance: Instance) -> Iterator[Client]:
    """A session on the echo server that must work before, meanwhile and afterwards, on the same connection."""
    with instance.client() as client:
        client.initialize()
        assert "result" in client.call("echo", when="before")
        yield client
        assert "result" in client.call("echo", when="after")
    assert instance.process is not None
    assert instance.process.poll() is None


def bare(instance: Instance, *, config: str = "", **servers: str) -> Instance:
    """Directories with these files, and no daemon."""
    (instance.config / "attestd.toml").write_text(config, encoding="utf-8")
    for name, text in servers.items():
        (instance.config / "servers.d" / f"{name}.toml").write_text(text, encoding="utf-8")
    return instance


def refused(instance: Instance, *words: str, code: int) -> str:
    """Run a program of ours that must refuse with this exit code; what it said, which is an error with a hint."""
    program, *rest = words or ("attestd", "run", "--user")
    result = instance.run(program, *rest)
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: "), result.stderr
    assert "\nhint: " in result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


# -- configuration --------------------------------------------------------------------------------------------------


SERVER = '[server]\nname = "time"\ntransport = "stdio"\ncommand = ["x"]\n'


@pytest.mark.parametrize(
    ("config", "server", "said"),
    [
        ("[limits]\nmesage_bytes = 1\n", "", ["attestd.toml", "unknown field `mesage_bytes`", "(line 2)", "message_bytes"]),
        ('[limits]\ndepth = "deep"\n', "", ["attestd.toml", "Expected `int`, got `str`", "limits.depth", "(line 2)"]),
        ("limits = 3\n", "", ["attestd.toml", "Expected `object`, got `int`", "limits"]),
        ("[limits\n", "", ["attestd.toml", "not valid TOML", "line 1"]),
        ("", SERVER + "colour = 3\n", ["time.toml", "unknown field `colour`", "allowed here: name, transport"]),
        ("", SERVER.replace('"stdio"', '"pigeon"'), ["time.toml", "pigeon", "transport"]),
        ("", SERVER.replace('["x"]', '"x"'), ["time.toml", "Expected `array`, got `str`", "command"]),
        ("", SERVER.replace('["x"]', "[]"), ["time.toml", "server.command: found []", "the program and its arguments"]),
        ("", SERVER.replace("time", "../time"), ["time.toml", "server.name: found '../time'", "a-z 0-9"]),
        ("", SERVER + 'run_as = "user:root"\n', ["server.run_as", "user mode starts servers as you"]),
        ("", '[server]\nname = "time"\ntransport = "unix"\nsocket = "here"\n', ["server.socket: found 'here'", "absolute"]),
        ("", "", []),
    ],
)  # fmt: skip
def test_a_configuration_that_is_wrong(short_tmp: Path, config: str, server: str, said: list[str]):
    """check-config and run name file, key, line, what was found and what is allowed, and exit 3; a good one exits 0."""
    instance = bare(on_the_machine(short_tmp), config=config, **({"time": server} if server else {}))
    if not said:
        assert instance.run("attestd", "check-config", "--user").returncode == 0
        return
    text = refused(instance, "attestd", "check-config", "--user", code=3)
    for words in said:
        assert words in text
    if "colour" in server or "depth" in config:
        assert refused(instance, code=3) == text
        assert not instance.control.exists()


def test_two_servers_of_one_name(short_tmp: Path):
    """Both files are named, and nothing is served."""
    instance = bare(on_the_machine(short_tmp), a=SERVER, b=SERVER)
    text = refused(instance, code=3)
    assert "b.toml: server 'time' is already defined in" in text
    assert "a.toml" in text


def test_files_that_cannot_be_read(short_tmp: Path):
    """A file that is not text, and one that is not there, are named."""
    instance = bare(on_the_machine(short_tmp))
    (instance.config / "servers.d" / "bin.toml").write_bytes(b"\xff\xfe[server]")
    assert "bin.toml: it is not UTF-8" in refused(instance, code=3)
    assert "there is no such file" in refused(
        instance, "attestd", "run", "--user", "--config", str(short_tmp / "no.toml"), code=3
    )


def test_a_policy_that_is_wrong(short_tmp: Path):
    """A policy that does not parse or does not fit the schema refuses to start, with file and line, exit 6."""
    instance = bare(on_the_machine(short_tmp))
    (instance.config / "policy.d").mkdir()
    for text, said in (
        ("permit (principal", "line 1"),
        ('@id("x")\npermit(principal, action, resource) when { principal.nosuch };\n', "nosuch"),
    ):
        (instance.config / "policy.d" / "mine.cedar").write_text(text)
        result = instance.run("attestd", "run", "--user")
        assert result.returncode == 6
        assert "mine.cedar" in result.stderr
        assert said in result.stderr


def test_a_bad_reload_keeps_the_old_configuration(instance: Instance):
    """The reload is refused with exit 3 and its reason, and every session goes on under the old configuration."""
    with neighbour(instance):
        path = instance.config / "servers.d" / "bad.toml"
        path.write_text(SERVER + "colour = 3\n")
        try:
            result = instance.run("attestctl", "reload")
            assert result.returncode == 3
            assert "unknown field `colour`" in result.stderr
            assert instance.process is not None
            instance.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 10
            while not any("reload refused" in e["message"] for e in instance.ctl("status")[0]["errors"]):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            path.unlink()
        assert instance.ctl("reload")[0]["changes"] == []


# -- directories, sockets, database ---------------------------------------------------------------------------------


def test_a_second_daemon_on_the_same_directories(instance: Instance):
    """It refuses with exit 3 and touches nothing of the first."""
    with neighbour(instance):
        text = refused(instance, code=3)
        assert "is writing to it" in text
        assert instance.ctl("audit", "verify")[0]["ok"] is True


def test_a_socket_path_in_use(short_tmp: Path):
    """Another process listens where a server's socket must be: refused with exit 3, and that process keeps its socket."""
    instance = bare(on_the_machine(short_tmp), time=SERVER)
    path = instance.socket("time")
    path.parent.mkdir(parents=True, mode=0o700)
    path.parent.parent.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()
        assert f"cannot listen on {path}: another process listens there" in refused(instance, code=3)
        assert path.exists()
    path.unlink()
    path.write_text("precious")
    assert "something that is not a socket is there" in refused(instance, code=3)
    assert path.read_text() == "precious"


@pytest.mark.root
def test_what_belongs_to_somebody_else(short_tmp: Path):
    """A socket or a directory of another uid is reported with both uids and left as it is."""
    instance = bare(on_the_machine(short_tmp), time=SERVER)
    path = instance.socket("time")
    path.parent.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    os.chown(path, 60_001, 60_001)
    assert "belongs to uid 60001, not to uid 0" in refused(instance, code=3)
    path.unlink()
    os.chown(path.parent, 60_001, 60_001)
    assert f"cannot use {path.parent}: it belongs to uid 60001" in refused(instance, code=3)


@pytest.mark.ordinary
@pytest.mark.parametrize("which", ["s", "r", "c"])
def test_no_permission_on_a_directory(short_tmp: Path, which: str):
    """A directory that cannot be written is named, exit 3."""
    instance = bare(on_the_machine(short_tmp))
    shutil.rmtree(short_tmp / which)
    (short_tmp / which).mkdir(mode=0o500)
    text = refused(instance, code=3)
    assert f"{short_tmp / which}/attestd: Permission denied" in text


def test_a_path_that_is_too_long(short_tmp: Path):
    """A socket path that the kernel cannot take is refused by name before anything is made."""
    deep = short_tmp / ("x" * 60)
    deep.mkdir()
    instance = bare(on_the_machine(deep), time=SERVER.replace("time", "t" * 40))
    assert "a socket path of at most 107 bytes" in refused(instance, code=3)


def test_a_database_of_a_newer_version(short_tmp: Path):
    """A store that a newer version wrote is not touched: exit 3, with both versions; put back, nothing is lost."""
    with running(short_tmp) as instance:
        instance.grant()
        instance.stop()
        store = instance.state / "grants.db"
        with contextlib.closing(sqlite3.connect(store)) as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            database.execute("PRAGMA user_version = 99")
        before = store.read_bytes()
        text = refused(instance, code=3)
        assert "99" in text
        assert str(version) in text
        assert store.read_bytes() == before
        with contextlib.closing(sqlite3.connect(store)) as database:
            database.execute(f"PRAGMA user_version = {version}")
        instance.start()
        with instance.client() as client:
            assert "result" in client.initialize()


def test_a_store_that_is_no_database(short_tmp: Path):
    """Garbage in the store's place is refused with exit 7 and kept."""
    with running(short_tmp) as instance:
        instance.stop()
        store = instance.state / "grants.db"
        for each in instance.state.glob("grants.db*"):
            each.unlink()
        store.write_bytes(b"not a database at all" * 100)
        store.chmod(0o600)
        result = instance.run("attestd", "run", "--user")
        assert result.returncode == 7, result.stderr
        assert "grants.db" in result.stderr
        assert store.read_bytes().startswith(b"not a database")


# -- servers --------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there(instance: Instance):
    """The client is told which file is missing, on its own id; its connection stays, and status shows the trouble."""
    with neighbour(instance), instance.client(server="absent") as client:
        for _ in range(2):
            refusal = client.initialize()
            assert cause(refusal) == "server_unavailable"
            assert "/nowhere/mcp-server-absent" in refusal["error"]["message"]
        shown = {each["name"]: each["state"] for each in instance.ctl("status")[0]["servers"]}
        assert (shown["absent"], shown["echo"]) == ("failed", "serving")
        assert any("/nowhere/mcp-server-absent" in e["message"] for e in instance.ctl("status")[0]["errors"])


def test_a_server_that_dies_at_once(instance: Instance):
    """The refusal holds its last words."""
    with neighbour(instance), instance.client(server="dies") as client:
        refusal = client.initialize()
        assert cause(refusal) == "server_unavailable"
        assert "config.yaml: no such file" in refusal["error"]["message"]


def test_a_server_that_prints_to_its_output(instance: Instance):
    """Lines that are no messages are left out, and the rest works."""
    with instance.client(server="garbage") as client:
        assert client.initialize()["result"]["serverInfo"]["name"] == "garbage"


@pytest.mark.parametrize(
    ("server", "words"), [("flood", "lines that are not MCP"), ("endless", "a message above 16777216 bytes")]
)
def test_a_server_that_floods_its_output(instance: Instance, server: str, words: str):
    """It is ended with the reason, its process too, and the daemon's memory stays bounded."""
    assert instance.process is not None
    daemon = psutil.Process(instance.process.pid)
    before = daemon.memory_info().rss
    with neighbour(instance), instance.client(server=server) as client:
        refusal = client.initialize()
        assert cause(refusal) == "server_malformed"
        assert words in refusal["error"]["message"]
    assert daemon.memory_info().rss - before < 96 * MIB


def test_a_server_that_floods_its_errors(instance: Instance):
    """Nine megabytes on standard error hold nothing up."""
    with neighbour(instance), instance.client(server="stderr") as client:
        assert client.initialize()["result"]["serverInfo"]["name"] == "stderr"


def test_a_server_that_never_answers(instance: Instance):
    """Its own client waits, as it would without attestd; nobody else does."""
    with instance.client(server="hangs") as client, neighbour(instance) as other:
        client.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}})
        assert "result" in other.call("echo")
        client.process.kill()


def test_a_server_that_ends_in_the_middle(instance: Instance):
    """Half an answer and the end: the call is refused, the connection closes."""
    with neighbour(instance), instance.client(server="ends") as client:
        client.initialize()
        refusal = client.call("half")
        assert cause(refusal) == "server_unavailable"
        assert client.receive() is None


def test_an_answer_that_is_not_mcp(instance: Instance):
    """The call that it answers is refused with the reason, and the next one works on the same connection."""
    with instance.client(server="ends") as client:
        client.initialize()
        refusal = client.call("twice")
        assert cause(refusal) == "server_malformed"
        assert "twice" in refusal["error"]["message"]
        assert "result" in client.call("fine")


# -- clients --------------------------------------------------------------------------------------------------------


def test_a_shim_in_an_environment_that_changes_its_imports(instance: Instance):
    """It is no relay of ours, but gets an answer at once: the refusal of the program that it is."""
    words = [str(instance.scripts / "attestd-connect"), "--socket", str(instance.socket()), "echo"]
    changed = {**instance.environment, "PYTHONPATH": "/nowhere"}
    with instance.client(argv=words, env=changed) as client:
        assert "relay-refused" in client.initialize()["error"]["message"]


def test_a_client_that_sends_garbage(instance: Instance):
    """Each line is answered with a JSON-RPC error, and the connection is still good."""
    with neighbour(instance), instance.client() as client:
        client.initialize()
        for line in (b"GET / HTTP/1.1", b"{", b"\x00\xff\xfe", b"[1,2,3]", b"null"):
            client.send_line(line)
            answer = client.receive()
            assert answer is not None
            assert answer["error"]["code"] in (-32700, -32600)
        assert "result" in client.call("echo")


def test_a_client_that_sends_half_a_message_and_hangs(instance: Instance):
    """Nobody waits for it, and when it goes on the message is whole."""
    with instance.client() as client:
        client.initialize()
        line = json.dumps({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "echo"}}).encode()
        assert client.process.stdin is not None
        client.process.stdin.write(line[:40])
        client.process.stdin.flush()
        with neighbour(instance):
            pass
        client.send_line(line[40:])
        answer = client.receive()
        assert answer is not None
        assert answer["id"] == 9
        assert "result" in answer


def test_a_line_without_end(instance: Instance):
    """64 MiB in one line: a refusal that names both sizes, in bounded memory, on the id; then the session goes on."""
    assert instance.process is not None
    daemon = psutil.Process(instance.process.pid)
    with neighbour(instance), instance.client() as client:
        client.initialize()
        before = daemon.memory_info().rss
        assert client.process.stdin is not None
        client.process.stdin.write(b'{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{"x":"')
        for _ in range(64):
            client.process.stdin.write(b"x" * MIB)
        client.send_line(b'"}}')
        answer = client.receive()
        assert answer is not None
        assert answer["id"] == 77
        assert answer["error"]["data"]["cause"] == "too_large"
        assert "expected at most 16777216" in answer["error"]["message"]
        assert daemon.memory_info().rss - before < 64 * MIB
        assert "result" in client.call("echo")


def test_a_client_that_closes_early(instance: Instance):
    """Connections that end at once, or in the middle of a message or a call, leave no session and no process behind."""
    with neighbour(instance):
        for first in (b"", b'{"jsonrpc":', b"", b"\n\n"):
            with instance.client() as client:
                assert client.process.stdin is not None
                client.process.stdin.write(first)
                client.process.stdin.flush()
        with instance.client() as client:
            client.initialize()
            client.send({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "slow"}})
            client.process.kill()
        deadline = time.monotonic() + 10
        while len(instance.ctl("ps")) > 1:
            assert time.monotonic() < deadline, instance.ctl("ps")
            time.sleep(0.05)
    assert instance.ctl("audit", "verify")[0]["ok"] is True


def test_more_connections_than_a_uid_may_have(short_tmp: Path):
    """The one too many is refused with the limit as its cause; those that are open go on."""
    with running(short_tmp, limits={"connections_per_uid": 2}) as instance:
        instance.grant()
        with instance.client() as one, instance.client() as two:
            one.initialize()
            two.initialize()
            with instance.client() as three:
                answer = three.receive()
                assert answer is not None
                assert cause(answer) == "limit_connections"
                assert three.receive() is None
            assert "result" in one.call("echo")
            assert "result" in two.call("echo")
        assert instance.ctl("status")[0]["approvers"] == instance.settings["approval"]["approvers"]
