"""Steps 0 and 1 over TCP, with real connections."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from attestd.errors import Cause, EvidenceError
from attestd.kernel.linux.kernel import LinuxKernel
from attestd.kernel.linux.tcp import attest as module
from attestd.kernel.linux.tcp.attest import TcpAttestation, is_tcp
from tests.fakes.recorder import FakeRecorder
from tests.support.puppets import Puppet, Stage


@contextlib.contextmanager
def client_of(puppet: Puppet) -> Iterator[socket.socket]:
    """A connection that a puppet made."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        puppet.tell(f"connect {host} {port}")
        accepted, _ = server.accept()
        with accepted:
            yield accepted


@pytest.fixture(name="kernel")
def _kernel() -> Iterator[LinuxKernel]:
    with contextlib.closing(LinuxKernel()) as kernel:
        yield kernel


def test_the_process_at_the_other_end(kernel: LinuxKernel):
    """Its uid at once, itself after a look; how it was found is part of the evidence."""
    with Stage() as stage:
        puppet = stage.enter()
        with client_of(puppet) as accepted:
            peer = kernel.peer(accepted.fileno())
            assert (peer.pid, peer.uid, peer.source) == (0, os.getuid(), "tcp")
            collected = kernel.collect(accepted.fileno(), peer)
            with contextlib.closing(collected.watch):
                evidence = collected.evidence
                assert (evidence.peer.pid, evidence.chain[0].pid) == (puppet.pid, puppet.pid)
                assert evidence.tcp is not msgspec.UNSET
                assert (evidence.tcp.shared, evidence.tcp.exec_changed) == (False, None)
                assert collected.watch.verify(puppet.pid) is None


def test_several_holders_are_said(kernel: LinuxKernel):
    """One of them is shown, and that there are others."""
    with Stage() as stage:
        puppet = stage.enter()
        with client_of(puppet) as accepted:
            puppet.fork()
            collected = kernel.collect(accepted.fileno(), kernel.peer(accepted.fileno()))
            with contextlib.closing(collected.watch):
                assert collected.evidence.tcp is not msgspec.UNSET
                assert collected.evidence.tcp.shared is True


def test_a_client_that_is_gone(kernel: LinuxKernel):
    """Refused at the first question."""
    with Stage() as stage:
        puppet = stage.enter()
        with client_of(puppet) as accepted:
            puppet.exit()
            with pytest.raises(EvidenceError) as caught:
                kernel.peer(accepted.fileno())
    assert caught.value.cause is Cause.PEER_GONE


def test_another_uid_than_at_accept(kernel: LinuxKernel):
    """The limits counted somebody else."""
    with Stage() as stage:
        puppet = stage.enter()
        with client_of(puppet) as accepted:
            peer = msgspec.structs.replace(kernel.peer(accepted.fileno()), uid=os.getuid() + 1)
            with pytest.raises(EvidenceError) as caught:
                kernel.collect(accepted.fileno(), peer)
    assert caught.value.cause is Cause.INCONSISTENT


def test_who_has_let_go_or_is_another(kernel: LinuxKernel):
    """The chain that was read must be the holder's, and it must still hold."""
    with Stage() as stage:
        puppet = stage.enter()
        with client_of(puppet) as accepted, contextlib.closing(TcpAttestation(FakeRecorder(fallback=True))) as tcp:
            known, _, pidfd = tcp.find(accepted.fileno(), tcp.peer(accepted.fileno()))
            os.close(pidfd)
            collected = kernel.collect(accepted.fileno(), kernel.peer(accepted.fileno()))
            link = collected.evidence.chain[0]
            collected.watch.close()

            class Seen:
                """As much of an observation as is looked at."""

            seen = Seen()
            seen.link = link  # type: ignore[attr-defined]
            tcp.confirm(known, seen)  # type: ignore[arg-type]
            seen.link = msgspec.structs.replace(link, start_ticks=link.start_ticks + 1)  # type: ignore[attr-defined]
            with pytest.raises(EvidenceError):
                tcp.confirm(known, seen)  # type: ignore[arg-type]
            seen.link = link  # type: ignore[attr-defined]
            with pytest.raises(EvidenceError, match="let go"):
                tcp.confirm(msgspec.structs.replace(known, inode=1), seen)  # type: ignore[arg-type]


def test_nobody_is_found(kernel: LinuxKernel, monkeypatch: pytest.MonkeyPatch):
    """Hidden from us, or in flight: not attested."""
    with Stage() as stage, contextlib.closing(TcpAttestation(FakeRecorder(fallback=True))) as tcp:
        puppet = stage.enter()
        with client_of(puppet) as accepted:
            peer = tcp.peer(accepted.fileno())
            monkeypatch.setattr("attestd.kernel.linux.tcp.peers.scan", lambda *_: ())
            with pytest.raises(EvidenceError) as caught:
                tcp.find(accepted.fileno(), peer)
    assert caught.value.cause is Cause.UNATTESTABLE
    del kernel


def test_families():
    """A Unix socket is not TCP."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_INET) as tcp:
        assert not is_tcp(ours.fileno())
        assert is_tcp(tcp.fileno())
    assert module.SOURCE == "tcp"
