"""Attacks with real processes: an arena with a daemon and a naive relay, and the programs of both sides.

Every attack is shown twice: against the relay, where the marked call executes, and against attestd, where
``Arena.refused`` asserts the cause in the answer and in the audit log, and that nothing executed. All programs are
driven through their standard streams, newline-delimited JSON; ``attempt`` sends a handshake and one marked call.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import ECHO, Client, Instance, cause, running
from tests.support.naive import Judge, Naive, anyone, cmdline, marks

C_SOURCES = Path(__file__).parent / "c"
WAIT_S = 20.0

DEMAND = """@id("demand-2")
@cause("level_too_low")
@message("this host demands assurance level 2")
forbid (principal, action, resource)
when { principal.attest_level < 2 };
"""

AGENT = '''\
"""A client that a person granted, like an agent with tools. {mark}

Copies lines between standard streams and the server. argv[1]: a socket's path, ``fd:N`` for a socket it was given,
``fd:R,W``, or ``relay`` and the words of a relay to start on a socket pair, as libuv does. A line that begins with ! is an order: run a program (it inherits the socket), hand the socket over, or read
what a file holds once it exists.
"""
import json, os, select, socket, subprocess, sys

where = sys.argv[1]
if where.startswith("fd:"):
    numbers = [int(n) for n in where[3:].split(",")]
    source, sink = numbers[0], numbers[-1]
elif where == "relay":
    s, far = socket.socketpair()
    subprocess.Popen(sys.argv[2:], stdin=far, stdout=far)
    far.close()
    s.set_inheritable(True)
    source = sink = s.fileno()
else:
    s = socket.socket(socket.AF_UNIX)
    s.connect(where)
    s.set_inheritable(True)
    source = sink = s.fileno()


def obey(order):
    if "run" in order:
        child = subprocess.Popen(order["run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
        child.stdin.write(order.get("input", "").encode())
        child.stdin.flush()
        text = b"".join(child.stdout.readline() for _ in range(order.get("lines", 0)))
        child.stdin.close()
        answer = {"text": (text + child.stdout.read()).decode(), "status": child.wait()}
    elif "send" in order:
        other = socket.socket(socket.AF_UNIX)
        other.connect(order["send"])
        socket.send_fds(other, [b"."], [sink])
        answer = {}
    else:
        answer = {"fd": sink, "pid": os.getpid()}
    os.write(1, json.dumps({"id": "order", "result": answer}).encode() + b"\\n")


rest = b""
while True:
    for fd in select.select([0, source], [], [])[0]:
        data = os.read(fd, 65536)
        if not data:
            sys.exit(0)
        if fd == source:
            os.write(1, data)
            continue
        *lines, rest = (rest + data).split(b"\\n")
        for line in lines:
            if line.startswith(b"!"):
                obey(json.loads(line[1:]))
            else:
                os.write(sink, line + b"\\n")
'''

LEAVER = '''\
"""Connects, writes a file, says so, and leaves when told. argv: socket, file."""
import os, socket, sys

s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(open(sys.argv[2], "rb").read())
os.write(1, b"{}\\n")
os.read(0, 1)
'''

LAUNDERER = '''\
"""Connects, writes what it was told, and becomes a granted program that holds the socket. {mark}

argv: socket, file to write first (or -), how, then the granted program's words; ``FD`` in them is the socket's number.
how: ``exec`` at once; ``wait`` for a line before; ``twin``: fork first, the twin writes the file when a line comes.
"""
import os, socket, sys

path, first, how, *words = sys.argv[1:]
s = socket.socket(socket.AF_UNIX)
s.connect(path)
s.set_inheritable(True)
text = b"" if first == "-" else open(first, "rb").read()
if how == "twin":
    orders, release = os.pipe()
    if os.fork() == 0:
        os.close(release)
        go = os.open(first + ".go", os.O_RDONLY)
        os.read(go, 1)
        s.sendall(text)
        os._exit(0)
else:
    s.sendall(text)
if how == "wait":
    os.read(0, 1)
os.execv(words[0], [word.replace("FD", str(s.fileno())) for word in words])
'''


def shots(mark: str, first: int = 1) -> bytes:
    """A handshake and one marked call, as lines; their ids are ``first`` and ``first + 1``."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test client", "version": "1"}}
    bodies: tuple[dict[str, Any], ...] = (
        {"id": first, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": first + 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"mark": mark}}},
    )
    return b"".join(json.dumps({"jsonrpc": "2.0", **body}).encode() + b"\n" for body in bodies)


def modern_shot(mark: str, first: int = 1) -> bytes:
    """One marked call of the revision without a handshake."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test client", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "echo", "arguments": {"mark": mark}, "_meta": meta}
    return json.dumps({"jsonrpc": "2.0", "id": first, "method": "tools/call", "params": params}).encode() + b"\n"


def attempt(client: Client, mark: str, first: int = 1) -> list[dict[str, Any]]:
    """Send the shots one after the other; what came back: both answers, or fewer if the connection was closed."""
    hello, initialized, call, _ = shots(mark, first).split(b"\n")
    answers: list[dict[str, Any]] = []
    for number, lines in ((first, hello), (first + 1, initialized + b"\n" + call)):
        with contextlib.suppress(BrokenPipeError):
            client.send_line(lines)
        answers += collect(client, {number})
    return answers


def collect(client: Client, wanted: set[int]) -> list[dict[str, Any]]:
    """Messages until each wanted id is answered or the stream ends. Pings are answered as every client must."""
    got: list[dict[str, Any]] = []
    while wanted and (message := client.receive()) is not None:
        if message.get("method") == "ping" and "id" in message:
            client.send({"jsonrpc": "2.0", "id": message["id"], "result": {}})
        elif "method" not in message:
            got.append(message)
            wanted.discard(message.get("id", -1))
    return got


def causes(answers: Sequence[dict[str, Any]]) -> dict[int, str]:
    """The cause of each refusal by the request's id; empty where it was served."""
    return {answer["id"]: cause(answer) for answer in answers}


def parsed(text: str) -> list[dict[str, Any]]:
    """Lines of JSON."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def until(condition: Callable[[], Any], what: str) -> Any:
    """The first true answer; fails after a while."""
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.01)
    return found


class Arena:
    """One daemon and one naive relay, with the same echo server behind both."""

    def __init__(self, instance: Instance, naive: Naive) -> None:
        self.instance = instance
        self.naive = naive
        self.root = instance.root
        self.grant: dict[str, Any] = {}
        self.granted_program = ""
        self._marks = 0

    # -- programs ---------------------------------------------------------------------------------------------------

    def mark(self) -> str:
        """A word that no other call carries."""
        self._marks += 1
        return f"mark{self._marks}"

    def agent(self, name: str = "agent.py") -> Path:
        """The granted client's script; another name makes another program."""
        return self.instance.script(name, AGENT.replace("{mark}", name))

    def genuine(self) -> Path:
        """A granted binary; ``grant`` has what was granted."""
        binary = self.compiled("client", "client.c")
        if not self.grant:
            self.grant = self.instance.grant(argv=[str(binary), str(self.instance.socket())])
        return binary

    def granted_elsewhere(self) -> list[str | Path]:
        """The granted agent, which reads its standard input only."""
        return python(self.agent(), "fd:0")

    def shots_file(self, mark: str) -> Path:
        """A file with a handshake and a marked call."""
        path = self.root / f"shots-{mark}"
        path.write_bytes(shots(mark))
        return path

    def shot_and_gone(self, path: Path, mark: str) -> int:
        """An evil client wrote its call and has exited and been reaped; the pid that it had."""
        leaver = self.instance.script("leaver.py", LEAVER)
        call = self.root / f"call-{mark}"
        call.write_bytes(shots(mark).splitlines(keepends=True)[-1])  # a server that answers a dead client may end
        with self.started(*python(leaver, path, call)) as client:
            client.receive()
        return client.process.pid

    def launderer(self) -> Path:
        """The program that becomes another."""
        return self.instance.script("launderer.py", LAUNDERER)

    def granted(self, script: Path, *words: str) -> dict[str, Any]:
        """Grant an agent script, with the launchers of this test run."""
        return self.instance.grant(script, *words)

    def warm(self) -> None:
        """Grant ``agent.py`` and call once: the daemon starts its launcher with the first back end."""
        self.granted_program = self.granted(self.agent())["subject"]["program"]
        with self.started(*python(self.agent(), self.instance.socket())) as client:
            assert all("result" in answer for answer in attempt(client, "granted"))

    def compiled(self, name: str, source: str, *flags: str) -> Path:
        """A C program of ``tests/support/c``, compiled once; skips where there is no compiler."""
        if shutil.which("gcc") is None:
            pytest.skip("needs gcc")
        path = self.root / name
        if path.exists():
            return path
        subprocess.run(["gcc", "-O1", "-o", str(path), str(C_SOURCES / source), *flags], check=True)
        return path

    @contextlib.contextmanager
    def started(self, *argv: str | Path, **popen: Any) -> Iterator[Client]:
        """A running program."""
        with self.instance.client(argv=[str(word) for word in argv], **popen) as client:
            yield client

    # -- the two sides ----------------------------------------------------------------------------------------------

    def succeeds_naively(
        self, argv: Callable[[Path], Sequence[str | Path]], judge: Judge = anyone, **popen: Any
    ) -> None:
        """Without the control the attack works: the call executes."""
        mark = self.mark()
        with self.started(*argv(self.naive.path), **popen) as client:
            assert self.naive.serve(judge), "the naive judge saw through it"
            answers = attempt(client, mark)
        assert self.naive.executed(mark)
        assert "result" in answers[-1]
        self.naive.end()

    def fails(self, argv: Callable[[Path], Sequence[str | Path]], *causes: str, **popen: Any) -> list[dict[str, Any]]:
        """Against attestd it is refused for one of ``causes``; the answers."""
        mark = self.mark()
        with self.since() as seen, self.started(*argv(self.instance.socket()), **popen) as client:
            answers = attempt(client, mark)
        self.refused(answers, seen, mark, *causes)
        return answers

    @contextlib.contextmanager
    def since(self) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Yields a function that returns the audit records appended from here on."""
        records = self.instance.records()
        last = records[-1]["seq"] if records else -1
        yield lambda: [record for record in self.instance.records() if record["seq"] > last]

    def refused(
        self, answers: Sequence[dict[str, Any]], seen: Callable[[], list[dict[str, Any]]], mark: str, *causes: str
    ) -> None:
        """Every answer is a refusal for one of ``causes``, so is the record, and the server executed nothing."""
        assert answers, "no answer"
        assert {cause(answer) for answer in answers} <= set(causes), answers
        self.recorded(seen, *causes)
        self.not_executed(mark)

    def recorded(self, seen: Callable[[], list[dict[str, Any]]], *causes: str) -> dict[str, Any]:
        """The first record that names one of ``causes``, which must come."""
        return until(lambda: next((r for r in seen() if r["cause"] in causes), None), f"a record of {causes}")

    def not_executed(self, mark: str) -> None:
        """The marked call did not reach the server."""
        assert mark not in marks(self.instance.executed())

    def caller(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The caller as a refusal shows it: program, level, display."""
        return next(a["error"]["data"]["caller"] for a in answers if "caller" in a["error"]["data"])

    @contextlib.contextmanager
    def demanding_level_2(self) -> Iterator[None]:
        """Meanwhile a policy of the host demands level 2 of every caller."""
        policies = self.instance.config / "policy.d"
        policies.mkdir(mode=0o700, exist_ok=True)
        policy = policies / "demand.cedar"
        policy.write_text(DEMAND)
        self.instance.ctl("reload")
        try:
            yield
        finally:
            policy.unlink()
            self.instance.ctl("reload")

    # -- time -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def daemon_asleep(self) -> Iterator[None]:
        """The daemon does not run meanwhile, so that what happens inside comes before accept."""
        assert self.instance.process is not None
        pid = self.instance.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: " T " in Path(f"/proc/{pid}/stat").read_text(), "the stop of the daemon")
            yield
        finally:
            self.awake()

    def awake(self) -> None:
        """Let the daemon run again."""
        assert self.instance.process is not None
        os.kill(self.instance.process.pid, signal.SIGCONT)

    def becomes(self, pid: int, word: str | Path) -> None:
        """Wait until the process executes this script (or has this word as its first argument)."""
        until(lambda: cmdline(pid).split("\0")[1:2] == [str(word)], f"process {pid} executing {word}")

    def session(self, pid: int, seen: Callable[[], list[dict[str, Any]]]) -> dict[str, Any]:
        """Wait until the daemon has attested a connection of ``pid``; its record."""
        return until(
            lambda: next((r for r in seen() if r["kind"] == "session" and r["pid"] == pid), None), "the attestation"
        )


@contextlib.contextmanager
def arena(root: Path, recorder: str | None = None, *, process_events: bool = False) -> Iterator[Arena]:
    """A started arena below a short directory; ``recorder``: where the kernel recorder is pinned."""
    with running(root, recorder=recorder, process_events=process_events) as instance:
        naive = Naive(root, instance.script("echo_server.py", ECHO))
        started = Arena(instance, naive)
        try:
            started.warm()
            yield started
        finally:
            naive.close()


def python(*words: str | Path) -> list[str | Path]:
    """A Python command line."""
    return [sys.executable, *words]
