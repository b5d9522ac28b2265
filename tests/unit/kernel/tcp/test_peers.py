from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.evidence.recorder import Connection, ProcessKey
from attestd.kernel.linux.tcp import peers as peers_module
from attestd.kernel.linux.tcp.peers import TcpPeers
from tests.fakes.recorder import FakeRecorder
from tests.support.children import running
from tests.unit.kernel.tcp.test_diag import connected, cookie
from tests.unit.kernel.tcp.test_holders import own_key


class Knowing(FakeRecorder):
    """A fake whose machine has this very process, as the connector of one cookie."""

    def __init__(self) -> None:
        super().__init__()
        self.us = self.boot("pytest", pid=os.getpid(), uid=os.getuid())

    def connected(self, number: int, *, contested: bool = False) -> None:
        record = self.process(self.us)
        assert record is not None
        self._connections[number] = Connection(
            cookie=number,
            key=self.us,
            exec_counter=record.exec_counter,
            family=2,
            time_ns=1,
            contested=contested,
        )


@pytest.fixture(name="recorder")
def _recorder() -> Knowing:
    made = Knowing()
    process = made._processes[0]
    process.key = ProcessKey(os.getpid(), own_key(os.getpid()).start_ns + 4711)
    made.us = process.key
    return made


@pytest.fixture(name="peers")
def _peers(recorder: Knowing) -> Iterator[TcpPeers]:
    with contextlib.closing(TcpPeers(recorder)) as made:
        yield made


def test_the_recorders_word_is_who_connected(peers: TcpPeers, recorder: Knowing):
    """Key and unchanged image, without a look at /proc; a later look finds no other holder."""
    with connected() as (accepted, client):
        recorder.connected(cookie(client))
        peer = peers.lookup(accepted)
        whole = peers.examine(peer)
    assert (peer.source, peer.key, peer.exec_changed, peer.shared) == ("recorder", recorder.us, False, None)
    assert (peer.examined, peer.reasons) == (False, (peers_module.UNEXAMINED,))
    assert (whole.examined, whole.shared, whole.reasons) == (True, False, ())
    assert whole.candidates == (recorder.us,)


def test_an_execution_after_connect_is_seen(peers: TcpPeers, recorder: Knowing):
    """The counter has gone on since."""
    with connected() as (accepted, client):
        recorder.connected(cookie(client))
        recorder.execute(recorder.us, "/bin/other")
        peer = peers.lookup(accepted)
    assert peer.exec_changed is True
    assert peers_module.EXEC_CHANGED in peer.reasons


def test_an_equal_counter_that_is_not_exact_proves_nothing(peers: TcpPeers, recorder: Knowing):
    """Events were lost since: not known is not unchanged."""
    with connected() as (accepted, client):
        recorder.connected(cookie(client))
        with recorder.losing():
            pass
        peer = peers.lookup(accepted)
    assert peer.exec_changed is None
    assert peers_module.EXEC_UNKNOWN in peer.reasons


def test_a_connector_that_has_exited_left_its_socket_to_another(peers: TcpPeers, recorder: Knowing):
    """The socket lives, so somebody else has it."""
    with connected() as (accepted, client):
        recorder.connected(cookie(client))
        recorder.exit(recorder.us)
        peer = peers.lookup(accepted)
    assert peer.shared is True
    assert peers_module.CONNECTOR_EXITED in peer.reasons


def test_a_contested_connection_is_shared(peers: TcpPeers, recorder: Knowing):
    """Two called connect: either may have written."""
    with connected() as (accepted, client):
        recorder.connected(cookie(client), contested=True)
        peer = peers.lookup(accepted)
    assert peer.shared is True
    assert peers_module.CONTESTED in peer.reasons


def test_a_shared_socket_has_several_candidates(peers: TcpPeers, recorder: Knowing):
    """The connector and everyone who inherited it."""
    with connected() as (accepted, client), running("sleep", "99", pass_fds=[client.fileno()]) as twin:
        recorder.connected(cookie(client))
        peer = peers.examine(peers.lookup(accepted))
        other = own_key(twin.pid)
    assert (peer.key, peer.shared) == (recorder.us, True)
    assert set(peer.candidates) == {recorder.us, other}
    assert peers_module.SHARED in peer.reasons


def test_without_a_recorder_the_only_holder_is_the_peer(peers: TcpPeers):
    """Found by scanning; what it executed is not known."""
    with connected() as (accepted, _client):
        peer = peers.lookup(accepted)
    assert (peer.source, peer.key, peer.examined, peer.shared) == ("scan", own_key(os.getpid()), True, False)
    assert peer.exec_changed is None
    assert set(peer.reasons) == {peers_module.SCANNED, peers_module.EXEC_UNKNOWN}


def test_without_a_recorder_several_holders_are_nobody(peers: TcpPeers):
    """No key, all candidates."""
    with connected() as (accepted, client), running("sleep", "99", pass_fds=[client.fileno()]) as twin:
        peer = peers.lookup(accepted)
        both = {own_key(os.getpid()), own_key(twin.pid)}
    assert (peer.key, peer.shared) == (None, True)
    assert set(peer.candidates) == both


def test_a_recent_peer_is_looked_at_first(peers: TcpPeers, monkeypatch: pytest.MonkeyPatch):
    """The second connection of a process needs no scan, and says that nobody else was looked for."""
    with connected() as (accepted, _client), connected() as (other, _):
        peers.lookup(accepted)
        monkeypatch.setattr(peers_module, "scan", lambda *_: pytest.fail("scanned"))
        for each in (accepted, other, other):
            peer = peers.lookup(each)
            assert (peer.key, peer.examined, peer.shared) == (own_key(os.getpid()), False, None)
            assert peers_module.UNEXAMINED in peer.reasons


def test_a_socket_without_a_visible_holder_is_nobodys(peers: TcpPeers, monkeypatch: pytest.MonkeyPatch):
    """Its holder may be hidden from us, or the socket in flight between two processes."""
    monkeypatch.setattr(peers_module, "scan", lambda *_: ())
    with connected() as (accepted, _client):
        peer = peers.lookup(accepted)
    assert (peer.source, peer.key, peer.shared, peer.reasons) == ("none", None, None, (peers_module.NO_HOLDER,))


def test_a_recorded_connector_without_the_socket_gave_it_away(peers: TcpPeers, recorder: Knowing, monkeypatch):
    """Holders are others only."""
    with connected() as (accepted, client), running("sleep", "99", pass_fds=[client.fileno()]) as twin:
        recorder.connected(cookie(client))
        found = peers_module.scan(os.fstat(client.fileno()).st_ino, cookie(client), None)
        monkeypatch.setattr(peers_module, "scan", lambda *_: tuple(h for h in found if h.key.pid == twin.pid))
        peer = peers.examine(peers.lookup(accepted))
    assert peer.shared is True
    assert peers_module.HANDED_OVER in peer.reasons


def test_a_recorded_peer_whose_holders_are_hidden_stays_unproven(peers: TcpPeers, recorder: Knowing, monkeypatch):
    """No holder found is not "one holder"."""
    monkeypatch.setattr(peers_module, "scan", lambda *_: ())
    with connected() as (accepted, client):
        recorder.connected(cookie(client))
        peer = peers.examine(peers.lookup(accepted))
    assert (peer.key, peer.shared, peer.reasons) == (recorder.us, None, (peers_module.NO_HOLDER,))


def test_a_client_that_has_gone_is_refused_even_if_recorded(peers: TcpPeers, recorder: Knowing):
    """The recorder's word on a dead connection is not used, and the uid that reads as root neither."""
    with connected() as (accepted, client):
        recorder.connected(cookie(client))
        client.close()
        with pytest.raises(EvidenceError) as caught:
            peers.lookup(accepted)
    assert caught.value.cause is Cause.PEER_GONE


def test_what_is_remembered_is_bounded(peers: TcpPeers):
    """The oldest go."""
    from attestd.kernel.linux.tcp.diag import Found
    from attestd.kernel.linux.tcp.holders import Holder

    for number in range(peers_module.RECENT + 10):
        peers._remember(Found(number, 1, number, 1), Holder(ProcessKey(1, 1), 3))
    assert len(peers._recent) == peers_module.RECENT
