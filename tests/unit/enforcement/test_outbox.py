from __future__ import annotations

import asyncio
import os
import socket

from attestd.enforcement.outbox import HIGH_BYTES, Outbox


async def drain(sock: socket.socket, size: int) -> bytes:
    """Read exactly ``size`` bytes."""
    data = bytearray()
    while len(data) < size:
        data += await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
    return bytes(data)


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


async def test_nothing_is_lost_when_the_reader_is_slow():
    """Every byte arrives in order although the kernel takes only a part at once, and relief is told once."""
    ours, theirs = pair()
    relieved: list[int] = []
    outbox = Outbox(asyncio.get_running_loop(), ours.fileno(), relieved=lambda: relieved.append(1), broken=list)
    blocks = [os.urandom(300_000) for _ in range(10)]
    for block in blocks:
        outbox.write(block)
    assert outbox.queued > HIGH_BYTES
    assert outbox.congested
    assert await drain(theirs, 3_000_000) == b"".join(blocks)
    await asyncio.sleep(0)
    assert outbox.queued == 0
    assert relieved == [1]
    outbox.discard()
    ours.close()
    theirs.close()


async def test_finish_waits_for_the_queue():
    """``finish`` calls back only when the last byte has gone, and nothing may follow it."""
    ours, theirs = pair()
    outbox = Outbox(asyncio.get_running_loop(), ours.fileno(), relieved=list, broken=list)
    outbox.write(b"x" * 2_000_000)
    done = asyncio.Event()
    outbox.finish(done.set)
    outbox.write(b"late")
    assert not done.is_set()
    assert await drain(theirs, 2_000_000) == b"x" * 2_000_000
    await asyncio.wait_for(done.wait(), 5)
    ours.close()
    assert theirs.recv(10) == b""
    theirs.close()


async def test_a_broken_reader_is_told_once():
    """Writing to a closed peer calls ``broken`` and swallows the rest."""
    ours, theirs = pair()
    broken: list[int] = []
    outbox = Outbox(asyncio.get_running_loop(), ours.fileno(), relieved=list, broken=lambda: broken.append(1))
    theirs.close()
    outbox.write(b"a")
    outbox.write(b"b")
    assert broken == [1]
    ours.close()
