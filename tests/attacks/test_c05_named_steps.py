"""C5: SIGKILL of the daemon at every named step of an append, a checkpoint, a new segment, an approval, a revocation."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from attestd.audit.highwater import read_high_water
from attestd.audit.log import AuditLogFile
from attestd.audit.protocol import Entry
from attestd.audit.query import Filters, query
from attestd.audit.verify import verify
from tests.support import log_writer
from tests.support.instance import Instance, cause, running
from tests.support.killing import Kill, Step, attach, follows, ordinals, run, struck
from tests.support.wire_attacks import until

pytestmark = [
    pytest.mark.linux("strace stops it at its system calls"),
    pytest.mark.attack("C5"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

WRITER = Path(log_writer.__file__)
LOG_STEPS: dict[str, Step] = {
    "clear the lock": ("ftruncate", "lock"),
    "sign the lock": ("pwrite64", "lock"),
    "write the first key": ("write", "first key"),
    "sync the first key": ("fsync", "first key"),
    "name the first key": ("renameat", "first key"),
    "write the salt": ("write", "salt"),
    "sync the salt": ("fsync", "salt"),
    "name the salt": ("renameat", "salt"),
    "begin a segment": ("write", "new segment"),
    "sync its beginning": ("fsync", "new segment"),
    "name the segment": ("renameat", "new segment"),
    "sync the directory of segments": ("fsync", "directory of segments"),
    "append a record": ("write", "segment"),
    "sync records": ("fdatasync", "segment"),
    "say that it is appended": ("write", "report"),
    "write the next key": ("write", "new key"),
    "sync the next key": ("fsync", "new key"),
    "name the next key": ("renameat", "new key"),
    "sync the directory of keys": ("fsync", "directory of keys"),
    "overwrite an old key": ("pwrite64", "key"),
    "sync it overwritten": ("fsync", "key"),
    "remove an old key": ("unlinkat", "key"),
    "write the high-water mark": ("write", "high-water mark"),
    "sync the high-water mark": ("fsync", "high-water mark"),
    "name the high-water mark": ("renameat", "high-water mark"),
}


FILES: dict[Step, str] = {
    ("write", "segment"): "audit/00000000.seg",
    ("fdatasync", "segment"): "audit/00000000.seg",
    ("write", "new segment"): "audit/00000001.seg.new",
    ("fsync", "new segment"): "audit/00000001.seg.new",
    ("renameat", "new segment"): "audit",
    ("fsync", "directory of segments"): "audit",
    ("write", "report"): "said",
    ("fsync", "directory of keys"): "audit/keys",
    ("renameat", "new key"): "audit/keys",
    ("unlinkat", "key"): "audit/keys",
    ("write", "high-water mark"): "audit.head.new",
    ("fsync", "high-water mark"): "audit.head.new",
    ("renameat", "high-water mark"): ".",
}
"""What to look at, where the name of what a step is about is known before."""
OF_A_KEY: set[Step | None] = {("pwrite64", "key"), ("fsync", "key")}
SETTLED_S = 0.15
"""What was recorded before is on the disk by then, so that the next sync is of the act."""
LATEST = 9
"""As the how-manieth call of its kind in its thread every step comes at the latest for the first time."""


@contextlib.contextmanager
def written(step: Step | None = None, when: int = 1) -> Iterator[tuple[Path, Path, list[int]]]:
    """A log that its writer was killed over; its root, the trace, the records that it had reported."""
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp")) / "steps"
    (root / "audit").mkdir(parents=True, mode=0o700)
    kill = None
    if step is not None:
        kill = Kill(step[0], when, root / FILES[step] if step in FILES else None)
    words, said = [sys.executable, str(WRITER), str(root)], root / "said"
    try:
        if step in OF_A_KEY:  # of a log that is there already, whose key has a name
            run(words, root / "trace", None, said)
            (key,) = (root / "audit" / "keys").iterdir()
            kill = Kill(step[0], when, key)
        run(words, root / "trace", kill, said)
        yield root, root / "trace", [int(number) for number in said.read_text().split("\n")[:-1]]
    finally:
        shutil.rmtree(root.parent)


def holds(root: Path, reported: list[int]) -> None:
    """The log opens, goes on, verifies against its high-water mark, and has every record that was reported."""
    with AuditLogFile(root / "audit", log_writer.ORIGIN, high_water=root / "audit.head") as log:
        log.append(Entry(kind="log", id="after"), log_writer.START_NS)
    report = verify(root / "audit", external_head=read_high_water(root / "audit.head"))
    assert report.ok, report.problems
    records = {row.record.seq for row in query(root / "audit", Filters(kinds=("decision",)))}
    assert set(reported) <= records


def test_the_steps_are_those_of_the_log():
    """A writer that nobody disturbs makes every named step, and only steps that have names."""
    with written() as (root, trace, reported):
        holds(root, reported)
        assert len(reported) >= log_writer.RECORDS
        found = set(ordinals(trace))
    assert found == set(LOG_STEPS.values())


@pytest.mark.parametrize("name", LOG_STEPS)
def test_the_log_at_a_named_step(name: str):
    """Killed before the step, at two of the times when it comes: nothing reported is lost, the chain holds."""
    step = LOG_STEPS[name]
    hits = 0
    for when in range(1, LATEST):
        with written(step, when) as (root, trace, reported):
            hits += step in struck(trace, step[0])
            holds(root, reported)
        if hits == 2:
            break
    assert hits, "it was never struck"


@pytest.fixture(name="instance")
def _instance() -> Iterator[Instance]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


def struck_while(instance: Instance, kill: Kill | str, act: Callable[[], object]) -> tuple[Path, bool]:
    """Trace the daemon while somebody acts; the trace, and whether the act was confirmed. A killed daemon is started.

    One that is not killed is traced until the record of the method ``kill`` is synced: the committer takes its time.
    """
    assert instance.process is not None
    trace = instance.root / "trace"
    trace.unlink(missing_ok=True)
    tracer = attach(instance.process.pid, trace, kill if isinstance(kill, Kill) else None)
    confirmed: list[bool] = []

    def acting() -> None:
        with contextlib.suppress(AssertionError, StopIteration):
            act()
            confirmed.append(True)

    thread = threading.Thread(target=acting)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    if isinstance(kill, str):
        until(lambda: ("fdatasync", "segment") in follows(trace, kill), f"a sync of {kill}", 60)
        tracer.terminate()
        tracer.wait(20)
    else:
        instance.process.wait(20)
        tracer.wait(20)
        instance.process = None
        instance.start()
    return trace, bool(confirmed)


class Acts(msgspec.Struct):
    """A client of its own, how it is approved, and how its grant is revoked."""

    mark: str
    script: Path
    approve: Callable[[], object]
    revoke: Callable[[], object]


def acts(instance: Instance, mark: str) -> Acts:
    """A client that waits for approval."""
    script = instance.talker(mark, f"{mark}.py")
    with instance.client(script) as client:
        code = str(client.initialize()["error"]["data"]["code"])

    def revoke() -> None:
        (grant,) = (g for g in instance.ctl("grants", "list") if f"{mark}.py" in g["display"])
        instance.ctl("grants", "revoke", grant["id"])

    return Acts(mark=mark, script=script, approve=lambda: instance.approve(code), revoke=revoke)


def recorded(instance: Instance, method: str, mark: str) -> bool:
    """Whether the log has this act on this client's grant."""
    found = instance.records(kind="admin", method=method)
    return any(f"{mark}.py" in str(record["detail"].get("for")) for record in found)


def served(instance: Instance, script: Path) -> bool:
    """Whether the client is let in; if not, for want of a grant."""
    with instance.client(script) as client:
        answer = client.initialize()
    assert "result" in answer or cause(answer) == "no_grant"
    return "result" in answer


GRANT_STEPS: dict[str, tuple[str, Step, str]] = {
    "record it": ("write", ("write", "segment"), "audit/00000000.seg"),
    "sync the record": ("fdatasync", ("fdatasync", "segment"), "audit/00000000.seg"),
    "write the row": ("pwrite64", ("pwrite64", "journal of the grants"), ""),
    "commit the row": ("fdatasync", ("fdatasync", "journal of the grants"), "grants.db-wal"),
}
"""The calls of an approval or a revocation, in their order; sqlite's first write is the row, its last the commit."""


def holds_at(instance: Instance, verb: str, one: Acts, kill: Kill, step: Step) -> bool:
    """Approve or revoke, killed before the step; whether that was in time: in the write of the act's record, or after.

    What a session before it left to be written to the log, or synced, may be struck first; what is in force and on
    record must agree then, too. The journal of the grants has other writes as well, and each of them is a step.
    """
    method = f"grant.{verb}"
    if verb == "revoke":
        one.approve()
    before = served(instance, one.script)
    time.sleep(SETTLED_S)
    trace, confirmed = struck_while(instance, kill, one.revoke if verb == "revoke" else one.approve)
    assert step in struck(trace, kill.call), f"{one.mark} was not struck"
    after, on_record = served(instance, one.script), recorded(instance, method, one.mark)
    assert instance.ctl("audit", "verify")[0]["ok"] is True
    assert (after is not before) or not confirmed
    if on_record and verb == "revoke":
        assert not after, "a revocation on record must hold, whatever the store says"
    if after is not before:
        assert on_record, "what is in force must be on record"
    return step[1] != "segment" or on_record or bool(follows(trace, method))


@pytest.mark.parametrize("verb", ["approve", "revoke"])
def test_a_grant_at_a_named_step(instance: Instance, verb: str):
    """What was confirmed is in force after the restart, what was not is whole or not there, and the log verifies."""
    everything = acts(instance, "undisturbed")
    trace, confirmed = struck_while(instance, "grant.approve", everything.approve)
    assert confirmed
    if verb == "revoke":
        trace, confirmed = struck_while(instance, "grant.revoke", everything.revoke)
        assert confirmed
    plan = ordinals(trace)
    assert {step for _, step, _ in GRANT_STEPS.values()} == plan.keys()
    for name, (call, step, path) in GRANT_STEPS.items():
        numbers = plan[step] if not path else [1]
        for when in sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]}):
            kill = Kill(call, when, instance.state / path if path else None)
            marks = (f"{name} {when} {attempt}".replace(" ", "_") for attempt in range(5))
            hits = (holds_at(instance, verb, acts(instance, mark), kill, step) for mark in marks)
            assert any(hits), f"{name} {when} never struck the act itself"
