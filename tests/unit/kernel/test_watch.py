from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from attestd.errors import Cause
from attestd.kernel.linux import chain
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.table import ProcessTable
from attestd.kernel.linux.watch import LinuxWatch
from tests.fakes.recorder import FakeRecorder
from tests.support.children import expect_ready, kill_and_wait_gone, python, running

LEAF = "import time; print('ready', flush=True); time.sleep(1000)"
MIDDLE = """
import os, subprocess, sys
c = subprocess.Popen([sys.executable, '-I', '-c', sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
c.stdout.readline(); print(c.pid, flush=True)
word = sys.stdin.readline().strip()
if word == 'exec': os.execv('/bin/sleep', ['sleep', '100'])
"""
TRACER = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
done = libc.ptrace(0x4206, int(sys.argv[1]), None, None)
print('ready' if done == 0 else 'refused', flush=True); sys.stdin.readline()
"""
THREADED = """
import sys, threading, time
t = threading.Thread(target=lambda: time.sleep(1000), daemon=True); t.start()
print('ready', flush=True); print(t.native_id, flush=True); sys.stdin.readline()
"""


@contextmanager
def tracing(target: int) -> Iterator[None]:
    with running(sys.executable, "-I", "-c", TRACER, str(target)) as tracer:
        if tracer.stdout.readline().strip() != "ready":
            pytest.skip("tracing is not permitted here")
        yield


@contextmanager
def family(table: ProcessTable) -> Iterator[tuple[object, int, LinuxWatch]]:
    """A parent, its child, and a watch on the child's chain with the parent accountable."""
    with running(sys.executable, "-I", "-c", MIDDLE, LEAF) as parent:
        leaf = int(parent.stdout.readline())
        links, _end = chain.walk(table, leaf)
        watch = LinuxWatch(links)
        watch.pin_accountable(1)
        try:
            yield parent, leaf, watch
        finally:
            watch.close()
            kill_and_wait_gone(leaf)


def until(watch: LinuxWatch, expected: Cause) -> None:
    """Ask until the answer changes; it must then be the expected one, for ever."""
    for _ in range(2_000_000):
        answer = watch.verify(0)
        if answer is not None:
            assert answer is expected
            assert watch.verify(0) is expected
            return
        os.sched_yield()
    pytest.fail("the change was never noticed")


def test_an_unchanged_chain_verifies(table: ProcessTable):
    """Nothing changed: no cause, whoever asks without a message or with the peer's pid."""
    with family(table) as (_parent, leaf, watch):
        assert watch.verify(0) is None
        assert watch.verify(leaf) is None


def test_another_writer_is_refused(table: ProcessTable):
    """Bytes of another process are a mismatch."""
    with family(table) as (parent, _leaf, watch):
        assert watch.verify(parent.pid) is Cause.WRITER_MISMATCH
        assert watch.verify(-1) is Cause.WRITER_MISMATCH


def test_an_exec_of_the_accountable_client_is_noticed(table: ProcessTable):
    """The image of the client is gone though its process lives."""
    with family(table) as (parent, _leaf, watch):
        parent.stdin.write("exec\n")
        parent.stdin.flush()
        until(watch, Cause.IMAGE_CHANGED)


def test_an_exit_of_the_accountable_client_is_noticed(table: ProcessTable):
    """The client's pidfd becomes readable and the chain no longer verifies."""
    with family(table) as (parent, _leaf, watch):
        _peer, client = watch.exit_fds()
        parent.kill()
        assert select.select([client], [], [], 10)[0] == [client]
        assert watch.verify(0) in {Cause.PEER_GONE, Cause.CHAIN_CHANGED}


def test_an_exit_of_the_peer_is_noticed(table: ProcessTable):
    """A dead peer is PEER_GONE, reaped or not."""
    with python(LEAF) as child:
        links, _end = chain.walk(table, child.pid)
        watch = LinuxWatch(links)
        watch.pin_accountable(0)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert watch.verify(0) is Cause.PEER_GONE
        child.wait()
        assert watch.verify(0) is Cause.PEER_GONE
        watch.close()


def test_after_a_relay_stepped_aside_the_client_is_asked_with_every_message(table: ProcessTable):
    """An exec of the client is noticed by the next message, without waiting for a whole look."""
    with family(table) as (parent, leaf, watch):
        watch.set_aside()
        assert watch.verify(leaf) is None
        assert watch.verify(parent.pid) is Cause.WRITER_MISMATCH
        watch._whole_ns = 1 << 62
        parent.stdin.write("exec\n")
        parent.stdin.flush()
        until(watch, Cause.IMAGE_CHANGED)
        assert watch.verify(leaf) is Cause.IMAGE_CHANGED


@pytest.mark.parametrize("asked", ["message", "look"])
def test_after_a_relay_stepped_aside_the_rest_is_asked_soon(table: ProcessTable, asked: str):
    """A tracer of the relay is seen by the next look without a message, and by messages within 10 ms."""
    with family(table) as (_parent, leaf, watch):
        watch.set_aside()
        assert watch.verify(leaf) is None
        with tracing(leaf):
            if asked == "message":
                time.sleep(0.02)
            assert watch.verify(leaf if asked == "message" else 0) is Cause.TRACED
        assert watch.verify(0) is None


@pytest.mark.parametrize("target", ["peer", "client"])
def test_a_tracer_is_noticed_and_so_is_its_leaving(table: ProcessTable, target: str):
    """While traced the cause is TRACED; afterwards the chain verifies again."""
    with family(table) as (parent, leaf, watch):
        assert watch.verify(0) is None
        with tracing(leaf if target == "peer" else parent.pid):
            until(watch, Cause.TRACED)
        assert watch.verify(0) is None


def test_a_traced_thread_is_found_when_pinned(table: ProcessTable):
    """A tracer of another thread than the first is seen at the moment of pinning and never forgiven."""
    with running(sys.executable, "-I", "-c", THREADED) as child:
        expect_ready(child)
        thread = int(child.stdout.readline())
        links, _end = chain.walk(table, child.pid)
        watch = LinuxWatch(links)
        with tracing(thread):
            assert watch.verify(0) is None
            watch.pin_accountable(0)
            assert watch.verify(0) is Cause.TRACED
        assert watch.verify(0) is Cause.TRACED
        watch.close()


def test_pinning_releases_what_lies_beyond(table: ProcessTable):
    """After pinning only the links up to the accountable client are held; others cannot be pinned any more."""
    with python(LEAF) as child:
        links, _end = chain.walk(table, child.pid)
        watch = LinuxWatch(links)
        watch.pin_accountable(0)
        assert watch.exit_fds() == (links[0].process.pidfd,)
        with pytest.raises(IndexError, match="holds 1 links"):
            watch.pin_accountable(1)
        watch.close()


def test_closing_twice_is_fine_and_nothing_verifies_afterwards(table: ProcessTable):
    """A closed watch holds nothing and answers PEER_GONE."""
    table.close()
    before = len(os.listdir("/proc/self/fd"))
    links, _end = chain.walk(table, os.getpid())
    watch = LinuxWatch(links)
    watch.close()
    watch.close()
    table.close()
    assert watch.verify(0) is Cause.PEER_GONE
    assert watch.exit_fds() == ()
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_pagemap_nothing_verifies(table: ProcessTable, monkeypatch: pytest.MonkeyPatch):
    """Where an exec could not be seen the watch refuses rather than hopes."""
    monkeypatch.setattr(Process, "_open_pagemap", lambda _process: None)
    links, _end = chain.walk(table, os.getpid())
    watch = LinuxWatch(links)
    assert watch.verify(0) is Cause.UNATTESTABLE
    watch.close()


@pytest.mark.root
def test_another_uid_is_noticed():
    """A peer that changed its uid after the attestation is not who was attested."""
    import subprocess
    import sys

    from attestd.kernel.linux.kernel import LinuxKernel

    source = "import os,sys; print(1, flush=True); sys.stdin.readline(); os.setuid(65534); print(2, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        watch = LinuxKernel().collect_pid(child.pid).watch
        assert watch.verify(child.pid) is None
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        assert watch.verify(child.pid) is Cause.INCONSISTENT
        watch.close()


def test_a_counter_that_is_not_exact_is_not_compared(table: ProcessTable):
    """Neither a proof nor a change: without exact counters the watch is what it is without a recorder."""
    machine = FakeRecorder()
    key = machine.fork(machine.boot())
    machine.execute(key, "/bin/true")
    exact = machine.process(key)
    assert exact is not None
    inexact = msgspec.structs.replace(exact, counter_exact=False)
    with running(sys.executable, "-I", "-c", LEAF) as child:
        expect_ready(child)
        for record, later in ((exact, Cause.IMAGE_CHANGED), (inexact, None)):
            links, _end = chain.walk(table, child.pid)
            links[0].record = record
            watch = LinuxWatch(links, machine)
            watch.pin_accountable(0)
            machine.execute(key, "/bin/other")
            assert watch.verify(child.pid) is later
            watch.close()
