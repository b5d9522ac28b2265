"""Step 4: every way in which a peer stops being the attested one."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator

import pytest

from attestd.errors import Cause
from attestd.kernel.darwin.chain import walk
from attestd.kernel.darwin.watch import DarwinWatch
from tests.fakes.libsystem import DEBUGGED, Proc
from tests.support.macs import Scene


@contextlib.contextmanager
def connected(scene: Scene, process: Proc) -> Iterator[tuple[DarwinWatch, socket.socket, socket.socket]]:
    """A watch on a connected process, our end of the connection, and the other one."""
    ours, theirs = scene.mac.connect(process.pid)
    chain, _ = walk(scene.system, scene.files, process.pid)
    watch = DarwinWatch(scene.system, chain, ours.fileno())
    with contextlib.closing(watch), ours, theirs:
        yield watch, ours, theirs


@contextlib.contextmanager
def watching(scene: Scene, process: Proc) -> Iterator[tuple[DarwinWatch, socket.socket]]:
    """The watch pinned to the parent of its process, and our end."""
    with connected(scene, process) as (watch, ours, _):
        watch.pin_accountable(1)
        yield watch, ours


@pytest.fixture(name="shim")
def _shim(scene: Scene) -> Proc:
    return scene.mac.spawn(scene.agent().pid, scene.signed("shim", "com.example.shim"))


def test_nothing_happened(scene: Scene, shim: Proc):
    """None, and nothing is told."""
    with watching(scene, shim) as (watch, _):
        assert watch.verify(shim.pid) is None
        assert not select.select(watch.exit_fds(), [], [], 0)[0]


def test_a_socket_that_another_process_used(scene: Scene, shim: Proc):
    """The token names whoever used the other end last."""
    with watching(scene, shim) as (watch, ours):
        other = scene.agent()
        scene.mac.use(ours, other.pid)
        assert watch.verify(0) is Cause.WRITER_MISMATCH
        scene.mac.exit(other.pid)
        assert watch.verify(0) is Cause.WRITER_MISMATCH
        scene.mac.use(ours, shim.pid)
        assert watch.verify(shim.pid) is None


def test_a_connection_that_has_ended(scene: Scene, shim: Proc):
    """A socket without another end has no token: the peer is gone, unless what began there was to go on elsewhere."""
    with connected(scene, shim) as (watch, _, theirs):
        theirs.close()
        assert watch.verify(shim.pid) is Cause.PEER_GONE
        watch.leave_connection()
        watch.leave_connection()
        assert watch.verify(shim.pid) is None
        scene.mac.execute(shim.pid, scene.signed("other"))
        assert watch.verify(shim.pid) is Cause.IMAGE_CHANGED


def test_a_connection_that_we_end(scene: Scene, shim: Proc):
    """Nothing of it is kept, so the other end reads its end."""
    with connected(scene, shim) as (watch, ours, theirs):
        ours.close()
        watch.leave_connection()
        assert theirs.recv(1) == b""


@pytest.mark.parametrize("who", [0, 1])
def test_an_exec(scene: Scene, shim: Proc, who: int):
    """Of the peer or of the accountable client: another image, and the kqueue tells."""
    with watching(scene, shim) as (watch, _):
        scene.mac.execute([shim.pid, shim.ppid][who], scene.signed("other"))
        assert select.select(watch.exit_fds(), [], [], 0)[0]
        assert watch.verify(shim.pid) is Cause.IMAGE_CHANGED


def test_an_exec_of_the_very_same_program(scene: Scene, shim: Proc):
    """The same file again is another image all the same."""
    with watching(scene, shim) as (watch, _):
        scene.mac.execute(shim.pid, shim.code)
        assert watch.verify(shim.pid) is Cause.IMAGE_CHANGED


def test_a_reused_pid(scene: Scene, shim: Proc):
    """The stranger that now has the peer's pid is not the peer."""
    with watching(scene, shim) as (watch, _):
        parent = shim.ppid
        scene.mac.exit(shim.pid)
        scene.mac.spawn(parent, shim.code, pid=shim.pid)
        assert watch.verify(shim.pid) is Cause.PEER_GONE


def test_the_accountable_client_exits(scene: Scene, shim: Proc):
    """Its child is no longer its child."""
    with watching(scene, shim) as (watch, _):
        scene.mac.exit(shim.ppid)
        assert select.select(watch.exit_fds(), [], [], 0)[0]
        assert watch.verify(shim.pid) is Cause.CHAIN_CHANGED


@pytest.mark.parametrize("who", [0, 1])
def test_a_debugger(scene: Scene, shim: Proc, who: int):
    """Attached now, or once: both are seen, at the peer and at the accountable client."""
    with watching(scene, shim) as (watch, _):
        held = [shim, scene.mac.processes[shim.ppid]][who]
        held.status |= DEBUGGED
        assert watch.verify(shim.pid) is Cause.TRACED
        held.status &= ~DEBUGGED
        held.traced = True
        assert watch.verify(shim.pid) is Cause.TRACED


def test_a_signature_that_turns_invalid(scene: Scene, shim: Proc):
    """A page that was changed is another image."""
    with watching(scene, shim) as (watch, _):
        shim.status &= ~1
        assert watch.verify(shim.pid) is Cause.IMAGE_CHANGED


def test_other_uids(scene: Scene, shim: Proc):
    """A peer that changed its uids is not the one that was attested."""
    with watching(scene, shim) as (watch, _):
        shim.uids = (501, 502, 501)
        assert watch.verify(shim.pid) is Cause.INCONSISTENT


def test_a_client_that_ends_before_it_is_pinned(scene: Scene, shim: Proc):
    """Then nothing ever verifies."""
    chain, _ = walk(scene.system, scene.files, shim.pid)
    watch = DarwinWatch(scene.system, chain)
    scene.mac.exit(shim.ppid)
    watch.pin_accountable(1)
    assert watch.verify(0) is Cause.PEER_GONE
    watch.close()


def test_a_peer_that_ends_before_it_is_watched(scene: Scene, shim: Proc):
    """There is nothing to watch, and no descriptor is left."""
    chain, _ = walk(scene.system, scene.files, shim.pid)
    scene.mac.exit(shim.pid)
    with pytest.raises(ProcessLookupError):
        DarwinWatch(scene.system, chain)


def test_a_question_that_fails_is_no_consent(scene: Scene, shim: Proc, monkeypatch: pytest.MonkeyPatch):
    """Whatever else the kernel answers is unattestable."""
    import ctypes
    import errno

    def refused(*_: object) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    with watching(scene, shim) as (watch, _):
        monkeypatch.setattr(scene.mac, "csops_audittoken", refused)
        assert watch.verify(shim.pid) is Cause.UNATTESTABLE
