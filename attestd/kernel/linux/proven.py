"""Whether bytes older than the attestation can be excluded by what the kernel recorded, without a challenge.

Proved for the peer (index 0) if it called connect itself, as the image that it runs now, on a socket that nobody else
had called connect on: whatever waits in the connection was then written after that exec, and who wrote it the
credentials say. Proved for the next link outwards if that link has not executed anything since it forked the link below
(so the pipe that it gave along holds nothing of an earlier image), if the link below has executed at most once since
(so no image in between could write and then become what is seen now), and if the standard input of the peer is not the
link's own standard input (which may come from before its exec). Every step needs a confirmed record.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import msgspec

from attestd.evidence.recorder import ProcessRecord, Recorder
from attestd.kernel.linux import unixdiag
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.table import Observed

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")


class Proven(msgspec.Struct, frozen=True):
    """``index``: the outermost link for which it is proved, -1 for none; and why it ends there."""

    index: int
    reason: str


NOTHING = Proven(-1, "")


def unix_cookie(sock_fd: int | None) -> int | str:
    """The cookie of the socket that an accepted Unix socket is connected to, or why it cannot be told."""
    if sock_fd is None:
        return "not named by a connection"
    try:
        inode = unixdiag.peer_inode(os.fstat(sock_fd).st_ino)
        cookie = unixdiag.cookie(inode) if inode is not None else None
    except (TimeoutError, OSError):
        cookie = None
    return "the other end of the connection cannot be told" if cookie is None else cookie


def upto(chain: Sequence[Observed], recorder: Recorder, cookie: int | str) -> Proven:
    """Walk outwards from the peer. ``cookie``: of the peer's socket, or why it is not known."""
    if isinstance(cookie, str):
        return Proven(-1, cookie)
    why = _connected_before(chain[0], recorder, cookie)
    if why:
        return Proven(-1, why)
    below = chain[0]
    for index, above in enumerate(chain[1:], start=1):
        why = _older(below.record, above, chain[0].process)
        if why:
            return Proven(index - 1, f"link {index}: {why}")
        below = above
    return Proven(len(chain) - 1, "")


def _connected_before(peer: Observed, recorder: Recorder, cookie: int) -> str:
    record = peer.record
    if record is None or not peer.link.recorded or not record.counter_exact:
        return "the record of the peer is not certain"
    found = recorder.connection(cookie)
    if found is None:
        return "the connect was not recorded"
    if found.contested:
        return "connect was called more than once on the socket"
    if found.key != record.key:
        return "another process connected the socket"
    return "" if found.exec_counter == record.exec_counter else "the peer executed something after it connected"


def _older(below: ProcessRecord | None, above: Observed, peer: Process | None) -> str:
    record = above.record
    if record is None or below is None or above.process is None or peer is None:
        return "not recorded, or dead"
    if not above.link.recorded or not record.counter_exact or not below.counter_exact:
        return "its record is not certain"
    if below.parent != record.key:
        return "it did not start the process below"
    if record.exec_ns >= below.forked_ns:
        return "it executed something after it started the process below"
    if below.exec_counter > record.exec_counter + 1:
        return "the process below executed more than one program"
    return "the standard input of the peer may be its own" if _same_input(peer, above.process) else ""


def _same_input(one: Process, other: Process) -> bool:
    """Whether both have the same standard input, as far as it can be told; None at all is not the same."""
    try:
        here = os.stat("fd/0", dir_fd=one.dirfd)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        there = os.stat("fd/0", dir_fd=other.dirfd)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
