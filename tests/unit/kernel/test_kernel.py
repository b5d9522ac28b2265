from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from attestd.errors import Cause, EvidenceError
from attestd.evidence.protocol import AbsentRecorder, Kernel
from attestd.kernel.linux.kernel import LinuxKernel, boot_id, host_id
from tests.support.children import listening, python

CONNECT = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print('ready', flush=True); sys.stdin.readline()
"""


@pytest.fixture(name="kernel")
def _kernel() -> Iterator[LinuxKernel]:
    kernel = LinuxKernel()
    yield kernel
    kernel.close()


class LoudRecorder(AbsentRecorder):
    """A recorder that is on."""

    def state(self) -> tuple[str, str]:
        return "on", "loud"


def test_it_is_a_kernel(kernel: LinuxKernel):
    """The implementation has the shape of the protocol."""
    door: Kernel = kernel
    assert {feature.name for feature in door.features()} >= {"so_peerpidfd", "executable_frozen"}


def test_a_connection_is_collected_twice_the_same(kernel: LinuxKernel, tmp_path: Path):
    """A second collection of an unchanged caller gives the same evidence, and no descriptor more than the first."""
    with listening(tmp_path) as (listener, path), python(CONNECT, path) as child:
        connection, _ = listener.accept()
        with connection:
            peer = kernel.peer(connection.fileno())
            first = kernel.collect(connection.fileno(), peer)
            count = len(os.listdir("/proc/self/fd"))
            second = kernel.collect(connection.fileno(), peer)
            assert len(os.listdir("/proc/self/fd")) == count
            assert second.watch.verify(child.pid) is None
            first.watch.close()
            second.watch.close()
    assert peer.pid == child.pid == first.evidence.chain[0].pid
    assert msgspec.structs.replace(first.evidence, collected_ns=0) == msgspec.structs.replace(
        second.evidence, collected_ns=0
    )
    assert first.evidence.recorder == "absent"
    assert first.evidence.boot_id == boot_id()


def test_evidence_can_be_written_down(kernel: LinuxKernel):
    """Evidence is data: it survives JSON, so nothing in it is a handle."""
    collected = kernel.collect_pid(os.getpid())
    collected.watch.close()
    written = msgspec.json.encode(collected.evidence)
    assert msgspec.json.decode(written, type=type(collected.evidence)) == collected.evidence


def test_the_recorders_word_is_passed_on():
    """State and reason of the recorder are part of the evidence."""
    kernel = LinuxKernel(LoudRecorder())
    collected = kernel.collect_pid(os.getpid())
    collected.watch.close()
    kernel.close()
    assert (collected.evidence.recorder, collected.evidence.recorder_reason) == ("on", "loud")


def test_another_peer_than_at_accept_is_refused(kernel: LinuxKernel, tmp_path: Path):
    """The socket must still name the peer whose limits were counted."""
    with listening(tmp_path) as (listener, path), python(CONNECT, path):
        connection, _ = listener.accept()
        with connection:
            other = msgspec.structs.replace(kernel.peer(connection.fileno()), pid=os.getpid())
            with pytest.raises(EvidenceError) as refusal:
                kernel.collect(connection.fileno(), other)
    assert refusal.value.cause is Cause.INCONSISTENT


@pytest.mark.parametrize("pid", [0, -5, 2**31 - 1])
def test_a_pid_of_nobody_is_gone(kernel: LinuxKernel, pid: int):
    """Inspecting a number that is no process is PEER_GONE."""
    with pytest.raises(EvidenceError) as refusal:
        kernel.collect_pid(pid)
    assert refusal.value.cause is Cause.PEER_GONE


def test_inspection_says_that_no_socket_was_asked(kernel: LinuxKernel):
    """The source of a peer by number is ``pid``."""
    collected = kernel.collect_pid(os.getpid())
    collected.watch.close()
    assert (collected.evidence.peer.source, collected.evidence.peer.uid) == ("pid", os.getuid())


def test_input_holders_come_through(kernel: LinuxKernel):
    """The relay's input is examined through the same door."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as relay:
        found = kernel.input_holders(relay.pid)
        relay.stdin.close()
    assert found.pids == (os.getpid(),)


def test_names_of_boot_and_host():
    """The boot id is a UUID; the host id is stable and does not show the machine id."""
    assert str(uuid.UUID(boot_id())) == boot_id()
    if (name := host_id()) is not None:
        assert name == host_id()
        assert len(name) == 32
        machine = Path("/etc/machine-id")
        assert not machine.exists() or name != machine.read_text().strip()


def test_nothing_is_left_when_collecting_fails(kernel: LinuxKernel):
    """A refused process leaves no descriptor behind."""
    child = subprocess.Popen([sys.executable, "-I", "-c", ""])
    child.wait()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(EvidenceError):
        kernel.collect_pid(child.pid)
    assert len(os.listdir("/proc/self/fd")) == before
