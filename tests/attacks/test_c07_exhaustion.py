"""C7: disk full, descriptor exhaustion, clock set back: refuse, say why, recover."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Client, Instance, cause, on_the_machine, running
from tests.support.wire_attacks import SUPPORT, call, until

pytestmark = pytest.mark.attack("C7")

HOUR_NS = 3_600_000_000_000


@pytest.fixture(name="instance")
def _instance() -> Iterator[Instance]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def limited(instance: Instance, which: int, soft: int) -> Iterator[None]:
    """The running daemon has less meanwhile."""
    assert instance.process is not None
    before = resource.prlimit(instance.process.pid, which)
    resource.prlimit(instance.process.pid, which, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(instance.process.pid, which, before)


def refused_for_the_disk(instance: Instance, client: Client) -> None:
    """Calls are refused with the reason, and not one of them is executed."""
    before = len(instance.executed())
    answer = client.call("echo")
    while "result" in answer:  # the room up to the limit
        before += 1
        answer = client.call("echo", text="x" * 100)
    if "the server has done it" in answer["error"]["message"]:  # there was room for the decision, not for the result
        before += 1
    for _ in range(5):
        answer = client.call("echo")
        assert cause(answer) == "audit_unavailable", answer
        assert answer["error"]["data"]["retry"] is True
        assert "audit" in answer["error"]["message"]
    assert len(instance.executed()) == before


def test_a_server_alone_executes_whatever_the_disk_holds(instance: Instance):
    """Without the control: the server itself does not care that nothing can be recorded."""
    with instance.client() as client:
        assert cause(client.initialize()) == "no_grant"
    import sys

    server = instance.root / "echo_server.py"
    done = subprocess.run(
        [sys.executable, str(server), str(instance.calls)],
        input=call("echo") + b"\n",
        capture_output=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert b"result" in done.stdout
    assert len(instance.executed()) == 1


def test_the_log_cannot_grow(instance: Instance):
    """By a limit on file sizes: refused with the reason, shown in status, served again as soon as there is room."""
    instance.grant()
    with instance.client() as client:
        client.initialize()
        assert "result" in client.call("echo")
        size = (instance.state / "audit" / "00000000.seg").stat().st_size
        with limited(instance, resource.RLIMIT_FSIZE, size + 2000):
            refused_for_the_disk(instance, client)
        assert "result" in client.call("echo")
    assert instance.ctl("audit", "verify")[0]["ok"] is True
    assert instance.stop() == 0


@pytest.mark.root
def test_the_disk_is_full(short_tmp: Path):
    """By a small file system: the same, and a full disk at the start is said, too."""
    state = short_tmp / "s"
    state.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(state)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    try:
        with running(short_tmp) as instance:
            instance.grant()
            with instance.client() as client:
                client.initialize()
                assert "result" in client.call("echo")
                filler = state / "filler"
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * 1024)
                refused_for_the_disk(instance, client)
                filler.unlink()
                until(lambda: "result" in client.call("echo"), "recovery")
            assert instance.ctl("audit", "verify")[0]["ok"] is True
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


@pytest.mark.linux("what stands for the kernel of a Mac needs descriptors itself")
def test_no_descriptors(instance: Instance):
    """New connections wait or are told; the one that is open goes on; afterwards everything is served."""
    assert instance.process is not None
    instance.grant()
    with instance.client() as client:
        client.initialize()
        assert "result" in client.call("echo")
        used = max(int(entry.name) for entry in Path(f"/proc/{instance.process.pid}/fd").iterdir())
        with limited(instance, resource.RLIMIT_NOFILE, used + 3), contextlib.ExitStack() as crowd:
            late = [crowd.enter_context(instance.client()) for _ in range(8)]
            told = [answer for answer in map(heard, late) if answer is not None]
            assert told
            assert {cause(answer) for answer in told} == {"limit_connections"}
            for number in range(20):
                assert "result" in client.call("echo", n=number)
            assert instance.process.poll() is None
        with instance.client() as fresh:
            assert "result" in fresh.initialize()
            assert "result" in fresh.call("echo")
        assert "result" in client.call("echo")
    until(lambda: not instance.ctl("ps"), "the end of the sessions")
    assert instance.ctl("audit", "verify")[0]["ok"] is True
    why = [(r["cause"], r["detail"]["why"]) for r in instance.records(kind="session", verdict="deny")]
    assert why
    assert {cause for cause, _ in why} == {"limit_connections"}
    assert all("Too many open files" in text for _, text in why)


def heard(client: Client) -> dict[str, Any] | None:
    """What the client is told without having asked, if anything."""
    try:
        return client.receive(2)
    except TimeoutError:
        return None


def test_the_clock_is_set_back(short_tmp: Path):
    """A grant with an end is refused while the clock contradicts it; the log stays in order and notes the clock."""
    shift = short_tmp / "shift"

    def set_clock(hours: float) -> None:
        shift.write_text(str(int(hours * HOUR_NS)))

    instance = on_the_machine(short_tmp)
    instance.daemons_own = {"PYTHONPATH": str(SUPPORT / "shifted"), "SHIFT": str(shift)}
    instance.server("echo")
    instance.start()
    try:
        instance.grant(None, "--for", "1h")
        with instance.client() as client:
            client.initialize()
            assert "result" in client.call("echo")
            set_clock(-2)
            answer = client.call("echo")
            assert cause(answer) in ("expired", "no_grant")
            assert len(instance.executed()) == 1
            records = instance.records(verdict="deny")
            assert "clock" in records[-1]["detail"]
            set_clock(0)
            assert "result" in client.call("echo")
            set_clock(3)
            assert cause(client.call("echo")) in ("expired", "no_grant")
        everything = instance.records()
        assert [r["time"] for r in everything] == sorted(r["time"] for r in everything)
        assert instance.ctl("audit", "verify")[0]["ok"] is True
    finally:
        instance.stop()
