"""Who connected, by credentials and token."""

from __future__ import annotations

import ctypes
import errno

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.kernel.darwin.peer import read_peer
from tests.support.macs import Scene


def test_the_connector(scene: Scene):
    """Pid and version from the token, uid and groups from the moment of connect."""
    agent = scene.agent()
    ours, theirs = scene.mac.connect(agent.pid)
    with ours, theirs:
        peer = read_peer(scene.system, ours.fileno())
    assert (peer.pid, peer.pid_version, peer.uid, peer.gid) == (agent.pid, agent.version, 501, 20)
    assert (peer.groups, peer.source) == ((20, 80), "token")


def test_a_connector_that_has_gone(scene: Scene):
    """The kernel makes no token for it."""
    agent = scene.agent()
    ours, theirs = scene.mac.connect(agent.pid)
    scene.mac.exit(agent.pid)
    with ours, theirs, pytest.raises(EvidenceError) as refused:
        read_peer(scene.system, ours.fileno())
    assert refused.value.cause is Cause.PEER_GONE


def test_a_socket_in_another_users_hands(scene: Scene):
    """A uid that did not connect is refused."""
    agent, other = scene.agent(), scene.agent(uids=(502, 502, 502))
    ours, theirs = scene.mac.connect(agent.pid)
    scene.mac.use(ours, other.pid)
    with ours, theirs, pytest.raises(EvidenceError, match="uid 501 connected") as refused:
        read_peer(scene.system, ours.fileno())
    assert refused.value.cause is Cause.UNATTESTABLE


@pytest.mark.parametrize(
    ("number", "cause"),
    [(errno.ENOTCONN, Cause.PEER_GONE), (errno.ENOPROTOOPT, Cause.UNATTESTABLE), (errno.ENOTSOCK, Cause.UNATTESTABLE)],
)
def test_errors_of_the_kernel(scene: Scene, monkeypatch: pytest.MonkeyPatch, number: int, cause: Cause):
    """A hung-up peer is gone; a socket of another family has no peer."""

    def getsockopt(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(scene.mac, "getsockopt", getsockopt)
    with pytest.raises(EvidenceError) as refused:
        read_peer(scene.system, 0)
    assert refused.value.cause is cause


def test_our_own_lack_is_no_fact(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """EMFILE says nothing about the peer."""

    def getsockopt(*_: object) -> int:
        ctypes.set_errno(errno.EMFILE)
        return -1

    monkeypatch.setattr(scene.mac, "getsockopt", getsockopt)
    with pytest.raises(OSError, match="Too many open files"):
        read_peer(scene.system, 0)
