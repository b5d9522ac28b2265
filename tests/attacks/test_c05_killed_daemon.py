"""C5: SIGKILL of the daemon in the middle of a call, at every step."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest

from attestd.wire.serialise import to_bytes
from tests.support.instance import Instance, cause, running
from tests.support.wire_attacks import until

pytestmark = pytest.mark.attack("C5")

MOMENTS = 12
STEP_S = 0.011
"""The kills come this much later each time, counted from the first answer: no step of a call is spared."""


@pytest.fixture(name="instance")
def _instance() -> Iterator[Instance]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


def kill(instance: Instance) -> list[psutil.Process]:
    """SIGKILL; the processes that stood under the daemon."""
    assert instance.process is not None
    under = psutil.Process(instance.process.pid).children(recursive=True)
    instance.process.kill()
    instance.process.wait()
    instance.process = None
    return under


def calls_until_the_end(instance: Instance, answered: threading.Event, mark: str, done: list[int]) -> None:
    """Call without pause until the connection is gone."""
    with instance.client() as client, contextlib.suppress(AssertionError, OSError, TimeoutError):
        assert "result" in client.initialize()
        for number in range(100_000):
            assert "result" in client.call("echo", mark=mark, n=number)
            done.append(number)
            answered.set()


def digests(instance: Instance, executed: list[dict[str, Any]]) -> list[str]:
    """What the audit log calls the arguments of these calls."""
    salt = (instance.state / "audit" / "salt").read_bytes()
    return [sha256(salt + to_bytes(call["arguments"])).hexdigest() for call in executed]


def permits(instance: Instance) -> set[str]:
    """The digests of the arguments of every permitted call on record."""
    result = instance.run("attestctl", "audit", "query", "--verdict", "permit", "--json")
    rows = [json.loads(each) for each in result.stdout.splitlines()]
    return {row["args_sha256"] for row in rows if row["method"] == "tools/call"}


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs."""
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_killed_in_the_middle_of_calls(instance: Instance):
    """At many moments: what was executed is on record, no server outlives the daemon, the grant does, the log holds.

    Without the control the record is written after the effect, and a kill between the two leaves a call that nobody
    knows of; here the last executed call of each run must be on record although its answer never came.
    """
    instance.grant()
    for moment in range(MOMENTS):
        answered, done = threading.Event(), list[int]()
        client = threading.Thread(target=calls_until_the_end, args=(instance, answered, f"m{moment}", done))
        client.start()
        assert answered.wait(20)
        time.sleep(moment * STEP_S)
        under = kill(instance)
        client.join(20)
        assert not client.is_alive()
        assert len(under) >= 2, "launcher and server"
        until(lambda under=under: gone(under), "end of the launcher and its servers")
        instance.start()
        assert instance.ctl("audit", "verify")[0]["ok"] is True
        executed = [c for c in instance.executed() if c["arguments"]["mark"] == f"m{moment}"]
        assert len(executed) >= len(done)
        unrecorded = set(digests(instance, executed)) - permits(instance)
        assert not unrecorded, f"{len(unrecorded)} of {len(executed)} executed calls are not on record"


def test_killed_while_approving(instance: Instance):
    """An approval that was confirmed is in force after the restart; one that was not is either whole or not there."""
    for moment in range(6):
        script = instance.talker(f"m{moment}", f"m{moment}.py")
        with instance.client(script) as client:
            code = client.initialize()["error"]["data"]["code"]
        confirmed: list[bool] = []

        def approve(code: str = code, confirmed: list[bool] = confirmed) -> None:
            with contextlib.suppress(AssertionError, StopIteration):
                instance.approve(code)
                confirmed.append(True)

        approver = threading.Thread(target=approve)
        before = (instance.state / "audit" / "00000000.seg").stat().st_size
        approver.start()
        if moment < 3:
            until(lambda before=before: (instance.state / "audit" / "00000000.seg").stat().st_size > before, "a record")
        time.sleep(moment * 0.12)
        kill(instance)
        approver.join(60)
        instance.start()
        with instance.client(script) as client:
            answer = client.initialize()
            assert "result" in answer or cause(answer) == "no_grant"
            if confirmed:
                assert "result" in answer
        assert instance.ctl("audit", "verify")[0]["ok"] is True


def test_a_client_learns_of_the_end(instance: Instance):
    """The connection ends with the daemon: no call hangs for ever, and the client may connect again."""
    instance.grant()
    with instance.client() as client:
        client.initialize()
        client.send({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "slow"}})
        until(instance.executed, "the call")
        under = kill(instance)
        assert client.receive() is None
        until(lambda: gone(under), "end of the launcher and its servers")
    instance.start()
    with instance.client() as client:
        assert "result" in client.initialize()
