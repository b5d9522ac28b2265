"""Traps of loopback TCP, with real processes: shared, handed over, executed after connect."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.evidence.recorder import ProcessKey, Recorder
from attestd.kernel.linux.tcp import peers as peers_module
from attestd.kernel.linux.tcp.peers import TcpPeers
from tests.contract.worlds import BpfWorld, ConnectorWorld
from tests.fakes.recorder import FakeRecorder
from tests.support.puppets import Puppet, Stage


@contextlib.contextmanager
def client_of(puppet: Puppet) -> Iterator[socket.socket]:
    """A connection that a puppet made, as a server has it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        puppet.tell(f"connect {host} {port}")
        accepted, _ = server.accept()
        with accepted:
            yield accepted


@contextlib.contextmanager
def asking(recorder: Recorder) -> Iterator[TcpPeers]:
    with contextlib.closing(TcpPeers(recorder)) as made:
        yield made


def cut(puppet: Puppet) -> ProcessKey:
    return ProcessKey(puppet.pid, puppet.start_ns)


def test_a_forked_client_is_several_candidates():
    """A socket that was inherited has no single writer."""
    with Stage() as stage, asking(FakeRecorder(fallback=True)) as peers:
        puppet = stage.enter()
        with client_of(puppet) as accepted:
            assert peers.lookup(accepted).key == cut(puppet)
            twin = puppet.fork()
            peer = peers.examine(peers.lookup(accepted))
    assert (peer.key, peer.shared) == (None, True)
    assert set(peer.candidates) == {cut(puppet), cut(twin)}


def test_a_client_that_ended_and_left_its_socket_is_its_heir():
    """Without a recorder the heir is all there is, found by scanning and said so."""
    with Stage() as stage, asking(FakeRecorder(fallback=True)) as peers:
        puppet = stage.enter()
        with client_of(puppet) as accepted:
            heir = puppet.fork()
            puppet.exit()
            peer = peers.examine(peers.lookup(accepted))
    assert (peer.source, peer.key) == ("scan", cut(heir))
    assert peers_module.SCANNED in peer.reasons


def test_a_client_that_ended_is_refused():
    """Its socket reads as root's; nobody is root for that."""
    with Stage() as stage, asking(FakeRecorder(fallback=True)) as peers:
        puppet = stage.enter()
        with client_of(puppet) as accepted:
            puppet.exit()
            with pytest.raises(EvidenceError) as caught:
                peers.lookup(accepted)
    assert caught.value.cause is Cause.PEER_GONE


@pytest.mark.root
def test_another_users_client_is_found_by_its_uid():
    """The socket's uid chooses whose processes are looked at."""
    with Stage() as stage, asking(FakeRecorder(fallback=True)) as peers:
        python = Path(os.path.realpath(os.sys.executable))
        if not all(parent.stat().st_mode & 0o001 for parent in python.parents):
            puppet = stage.enter()
            uid = 0
        else:
            puppet, uid = stage.enter(60123), 60123
        with client_of(puppet) as accepted:
            peer = peers.lookup(accepted)
    assert (peer.uid, peer.key) == (uid, cut(puppet))


def test_the_fallback_recorder_leaves_it_to_the_scan():
    """It knows no connections, and the holder is a process it knows."""
    with contextlib.closing(ConnectorWorld()) as world, asking(world.recorder) as peers:
        key = world.enter()
        with client_of(world._puppets[key]) as accepted:
            peer = peers.lookup(accepted)
            record = world.recorder.process(peer.key) if peer.key else None
    assert (peer.source, peer.key) == ("scan", key)
    assert record is not None
    assert record.key == key


@pytest.mark.root
def test_the_recorder_tells_the_connector_from_its_heir():
    """Who connected is known though it has exited; that another holds the socket makes it shared."""
    with contextlib.closing(BpfWorld()) as world, asking(world.recorder) as peers:
        key = world.enter()
        with client_of(world._puppets[key]) as accepted:
            first = peers.examine(peers.lookup(accepted))
            heir = world.fork(key)
            world.exit(key)
            peer = peers.examine(peers.lookup(accepted))
    assert first.key is not None
    assert (first.source, first.key.pid, first.shared, first.exec_changed) == ("recorder", key.pid, False, False)
    assert first.reasons == ()
    assert peer.key == first.key
    assert (peer.shared, peer.holders) == (True, (heir,))
    assert peers_module.CONNECTOR_EXITED in peer.reasons


@pytest.mark.root
def test_the_recorder_sees_an_execution_after_connect():
    """The socket was connected by one program and is held by another of the same process."""
    with contextlib.closing(BpfWorld()) as world, asking(world.recorder) as peers:
        key = world.enter()
        with client_of(world._puppets[key]) as accepted:
            world.execute(key)
            peer = peers.examine(peers.lookup(accepted))
    assert peer.exec_changed is True
    assert peers_module.EXEC_CHANGED in peer.reasons
