"""W13: 1 GiB line, a million nested arrays, 100 000 open requests, slow reader, slow writer, half-close.

What must hold: the daemon's memory stays bounded, and another client's calls are answered in bounded time meanwhile.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.instance import Client, Instance, cause, running
from tests.support.wire_attacks import SUPPORT, call, lenient, line, notes, until

pytestmark = pytest.mark.attack("W13")

MIB = 1 << 20
GIB = 1 << 30
GROWTH_BYTES = 160 * MIB
"""More than the largest message (16 MiB) held, parsed and written again, and far less than any attack sends."""
CALL_S = 3.0
"""Longest time that a call of somebody else may take while the daemon is under attack, on a slow machine."""
FLOODER = SUPPORT / "flooder.py"


@pytest.fixture(scope="module", name="ground")
def _ground() -> Iterator[Instance]:
    """One daemon, the lenient server, two granted programs."""
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root, "echo") as instance:
        instance.server("lenient", command=lenient(root / "lenient.log"))
        instance.ctl("reload")
        instance.grant(server="lenient")
        with instance.client(argv=flooder(instance, "junk", 0)) as client:
            assert client.process.wait() != 0, "the attacker is granted before it was approved"
        entry = next(p for p in instance.pending() if "flooder.py" in p["caller"]["display"])
        instance.approve(entry["code"])
        with instance.client(server="lenient") as client:
            client.initialize()
        yield instance
    shutil.rmtree(root, ignore_errors=True)


def flooder(instance: Instance, how: str, number: int) -> list[str]:
    """The attacker's command line."""
    script = instance.script("flooder.py", FLOODER.read_text(encoding="utf-8"))
    return [sys.executable, str(script), str(instance.socket("lenient")), how, str(number)]


class Watcher:
    """Calls as another client, again and again; remembers how long the slowest took, and the daemon's memory."""

    def __init__(self, instance: Instance, client: Client) -> None:
        assert instance.process is not None
        self._client = client
        self._daemon = instance.process.pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.calls = 0
        self.slowest_s = 0.0
        self.failure = ""
        Path(f"/proc/{self._daemon}/clear_refs").write_text("5")  # forget the high-water mark of the memory
        self._before = psutil.Process(self._daemon).memory_info().rss
        self._thread.start()

    @property
    def growth_bytes(self) -> int:
        status = Path(f"/proc/{self._daemon}/status").read_text()
        high = next(each for each in status.splitlines() if each.startswith("VmHWM:"))
        return int(high.split()[1]) * 1024 - self._before

    def _run(self) -> None:
        while not self._end.is_set():
            begun = time.monotonic()
            answer = self._client.call("echo", n=self.calls)
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            if "result" not in answer:
                self.failure = str(answer)
            self.calls += 1
            time.sleep(0.01)

    def finish(self) -> None:
        """Everything that must have held."""
        self._end.set()
        self._thread.join()
        print(f"calls {self.calls} slowest {self.slowest_s:.3f} s growth {self.growth_bytes / MIB:.1f} MiB")
        assert self.failure == ""
        assert self.calls > 0
        assert self.slowest_s < CALL_S
        assert self.growth_bytes < GROWTH_BYTES


@contextmanager
def watched(instance: Instance) -> Iterator[Watcher]:
    """Another client at work while the body attacks."""
    with instance.client(server="lenient") as client:
        assert "result" in client.initialize()
        watcher = Watcher(instance, client)
        try:
            yield watcher
        finally:
            watcher.finish()


@contextmanager
def attack(instance: Instance, how: str, number: int) -> Iterator[Client]:
    """The attacker, past its handshake and let loose."""
    with instance.client(argv=flooder(instance, how, number)) as client:
        assert client.process.stdout is not None
        assert client.process.stdout.readline() == b"ready\n"
        client.send_line(b"go")
        yield client


def last_line(client: Client) -> str:
    """What the attacker printed at its end."""
    assert client.process.stdout is not None
    return client.process.stdout.read().decode().strip().splitlines()[-1]


@pytest.mark.linux("no attestd stands between")
def test_a_proxy_that_reads_whole_lines_holds_them():
    """Without the control: reading a line means holding it, however long it is."""
    script = (
        "import sys, resource\nsys.stdin.buffer.readline()\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        for _ in range(256):
            process.stdin.write(b"x" * MIB)
        said, _ = process.communicate(b"\n")
    assert int(said) * 1024 > 256 * MIB


def test_a_line_of_one_gibibyte(ground: Instance):
    """It is dropped while it arrives, refused once as too large, recorded, and the connection goes on."""
    seen = len(ground.records(cause="too_large"))
    with watched(ground), attack(ground, "line", GIB) as client:
        assert last_line(client) == "1"
    assert len(ground.records(cause="too_large")) == seen + 1


@pytest.mark.parametrize(("depth", "why"), [(100_000, "too_deep"), (1_000_000, "too_large")])
def test_a_million_nested_arrays(ground: Instance, depth: int, why: str):
    """Refused before a parser recurses into it: for its depth, and from 250 000 values on for their number."""
    seen = len(ground.records(cause=why))
    before = len(notes(ground.root / "lenient.log"))
    with watched(ground) as other, attack(ground, "deep", depth) as client:
        assert last_line(client) == "1"
    assert len(ground.records(cause=why)) == seen + 1
    assert len(notes(ground.root / "lenient.log")) - before == other.calls


def test_a_hundred_thousand_open_requests(ground: Instance):
    """256 are open, each of the others is refused; the server was never told of those."""
    before = len(notes(ground.root / "lenient.log"))
    with watched(ground) as other, attack(ground, "open", 100_000) as client:
        assert last_line(client) == "99744"
    assert len(notes(ground.root / "lenient.log")) - before - other.calls == 256


def test_a_flood_of_junk(ground: Instance):
    """Each line is refused, and the others are served between."""
    with watched(ground), attack(ground, "junk", 50_000) as client:
        assert last_line(client) == "50000"


@pytest.mark.parametrize(("how", "number"), [("deaf", 3_000_000), ("greedy", 2000)])
def test_a_client_that_does_not_read(ground: Instance, how: str, number: int):
    """Attestd stops reading from it: neither refusals nor results pile up."""
    with watched(ground), attack(ground, how, number) as client:
        assert client.process.stdout is not None
        if how == "deaf":
            assert client.process.stdout.readline() == b"blocked\n"
        else:
            until(lambda: "big" in (ground.root / "lenient.log").read_text(), "the first calls")
            time.sleep(3)  # time for results to pile up, were they allowed to
        client.send_line(b"end")


def test_a_slow_writer(ground: Instance):
    """A call that arrives byte by byte is served like any other, and nobody waits for it."""
    with watched(ground), attack(ground, "drip", 100) as client:
        assert last_line(client) == "1"


def test_half_closed(ground: Instance):
    """A client that sends no more still gets its answers; then the session and its server end."""
    half = ground.script(
        "half.py",
        "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nf = s.makefile('rb')\n"
        "s.sendall(sys.stdin.buffer.readline())\nsys.stdout.buffer.write(f.readline())\nsys.stdout.buffer.flush()\n"
        "s.sendall(sys.stdin.buffer.read())\ns.shutdown(socket.SHUT_WR)\nsys.stdout.buffer.write(f.read())\n",
    )
    argv = [sys.executable, str(half), str(ground.socket("lenient"))]
    ground.grant(server="lenient", argv=argv)
    with watched(ground), ground.client(argv=argv) as client:
        assert "result" in client.initialize()
        for number in range(50):
            client.send_line(call("pid", number))
        client.send_line(line("tools/call", {"name": "slow", "arguments": {"seconds": 0.5}}, "last"))
        assert client.process.stdin is not None
        client.process.stdin.close()
        assert client.process.stdout is not None
        answers = [json.loads(each) for each in client.process.stdout.read().splitlines()]
        assert [a["id"] for a in answers] == [*range(50), "last"]
        assert all("result" in a for a in answers)
        pid = int(answers[0]["result"]["content"][0]["text"])
        until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the server")


def test_a_half_line_at_the_end(ground: Instance):
    """A call without its line end is no message: it is not executed."""
    before = len(notes(ground.root / "lenient.log"))
    with watched(ground) as other, ground.client(server="lenient") as client:
        client.initialize()
        assert client.process.stdin is not None
        client.process.stdin.write(call("pid", 5))
        client.process.stdin.flush()
        client.process.stdin.close()
        assert cause(client.receive() or {}) == "malformed"
        assert client.receive() is None
    assert len(notes(ground.root / "lenient.log")) - before == other.calls


def test_afterwards(ground: Instance):
    """Nothing is left of the attacks: no session, and a new client is served."""
    until(lambda: not ground.ctl("ps"), "the end of the sessions")
    with ground.client(server="lenient") as client:
        client.initialize()
        assert cause(client.call("echo")) == ""
