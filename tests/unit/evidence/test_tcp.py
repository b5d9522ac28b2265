from __future__ import annotations

import msgspec
import pytest

from attestd.evidence.recorder import ProcessKey
from attestd.evidence.tcp import TcpPeer


def test_a_peer_survives_being_written_down():
    """It is plain data and cannot be changed."""
    key = ProcessKey(7, 10_000_000)
    peer = TcpPeer(
        cookie=1,
        inode=2,
        uid=3,
        source="recorder",
        key=key,
        candidates=(key,),
        holders=(),
        examined=False,
        shared=None,
        exec_changed=False,
        reasons=("why",),
    )
    assert msgspec.json.decode(msgspec.json.encode(peer), type=TcpPeer) == peer
    with pytest.raises(AttributeError):
        peer.uid = 0  # type: ignore[misc]
