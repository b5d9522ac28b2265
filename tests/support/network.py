"""A network namespace of the test's own, so that nothing it seals is a port of this machine. Needs root."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """This thread, and the processes that it starts, are in a new network namespace whose loopback is up."""
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        _demand(_libc.unshare(CLONE_NEWNET))
        try:
            raise_loopback()
            yield
        finally:
            _demand(_libc.setns(before.fileno(), CLONE_NEWNET))


def raise_loopback() -> None:
    """Switch ``lo`` on."""
    with socket.socket() as sock:
        asked = fcntl.ioctl(sock.fileno(), SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        (flags,) = struct.unpack_from("h", asked, 16)
        fcntl.ioctl(sock.fileno(), SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _demand(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
