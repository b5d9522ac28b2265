"""Where a client's bytes come from and go to: its socket, or the standard input and output that its shim hands over.

The shim (``attestd.shim``) offers the client's own descriptors with its first byte, and when they are taken it is no
longer in the path of any message: it stays as the process that was attested, and its exit still ends the session
(docs/adr/0017-the-shim-steps-aside.md). Rules for descriptors that another process made and may share:

- They are never set to non-blocking, because that would change them for their other holders, and never trusted to be:
  every read and write says itself that it does not wait (RWF_NOWAIT, MSG_DONTWAIT). What cannot do that is not taken.
- They are watched through an epoll descriptor of our own, because the loop would set what it watches to non-blocking.
- Only the very file whose holders were examined at the attestation is taken as input.
- A pipe does not name its writers. A socket pair does, from the moment it is asked to: a writer that is no process of
  the attested call is reported as itself. What waited there at that moment names nobody; it counts as the relay's, and
  is as unproven as everything that a relay brings. Whatever comes later without a name is nobody's: who holds a copy of
  the descriptor can ask the kernel not to name writers any more.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from attestd.enforcement import writers as unix
from attestd.evidence.model import InputHolders

READ_BYTES = 1 << 16
OFFER = b"\0"
"""The shim's first byte when it brings its descriptors; no JSON text begins with it."""
TAKEN = b"\0"
DECLINED = b"\1"


class ClientEnd(Protocol):
    """Both directions of one client, without blocking."""

    in_fd: int
    """Readable when bytes wait, or the end; only to be watched."""
    out_fd: int
    """Where bytes go, or a descriptor that is readable when there is room for them; only to be watched."""
    write: Callable[[bytes | memoryview], int] | None
    """How many bytes were sent, if ``out_fd`` is not where they go. Raises OSError, BlockingIOError first."""

    def read(self) -> tuple[bytes, int]:
        """Bytes (none at the end) and the pid that wrote them, 0 for nobody. Raises OSError, BlockingIOError first."""

    def close(self) -> None:
        """Let go of the descriptors."""


class SocketEnd:
    """The accepted socket; it belongs to the connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.in_fd = self.out_fd = sock.fileno()
        self.write: Callable[[bytes | memoryview], int] | None = None

    def read(self) -> tuple[bytes, int]:
        """As ``ClientEnd``."""
        return unix.read(self._sock, READ_BYTES)

    def read_first(self) -> tuple[bytes, int, tuple[int, ...]]:
        """As ``read``, with the descriptors that came along: the caller's to close."""
        found = unix.read_all(self._sock, READ_BYTES, 2)
        return found.data, found.writer, found.fds

    def close(self) -> None:
        """The connection closes its socket."""


if sys.platform == "linux":

    class StdioEnd:
        """The client's own standard input and output."""

        def __init__(self, fds: tuple[int, int], relay: int, writers: frozenset[int]) -> None:
            """Takes over ``fds``, input and output.

            ``relay`` is the attested peer; ``writers`` are the processes of its call.
            """
            self._read_fd, self._write_fd = fds
            self._relay = relay
            self._writers = writers
            self._nameless = 0
            """Bytes of a socket that were there before writers were named."""
            self._block = bytearray(READ_BYTES)
            self._input = _as_socket(self._read_fd)
            self._output = _as_socket(self._write_fd)
            if self._input is not None:
                unix.name_writers(self._input)
                self._nameless = unix.queued_bytes(self._input)
            self._in = _watched(self._read_fd, select.EPOLLIN)
            self._out = _watched(self._write_fd, select.EPOLLOUT)
            self.in_fd = self._in.fileno()
            self.out_fd = self._out.fileno()
            self.write: Callable[[bytes | memoryview], int] | None = self._send

        def read(self) -> tuple[bytes, int]:
            """As ``ClientEnd``; the writer of a pipe is the relay, for whoever writes there is taken for its client."""
            if self._input is None:
                size = os.preadv(self._read_fd, (self._block,), -1, os.RWF_NOWAIT)
                return bytes(memoryview(self._block)[:size]), self._relay
            nameless = self._nameless
            data, ancillary, _flags, _address = self._input.recvmsg(
                min(nameless, READ_BYTES) or READ_BYTES,
                unix.CREDENTIALS_SPACE,
                socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
            )
            self._nameless = max(0, nameless - len(data))
            pid = unix.writer(ancillary)
            return data, self._relay if pid in self._writers or (pid == 0 and nameless) else pid

        def _send(self, data: bytes | memoryview) -> int:
            if self._output is None:
                return os.pwritev(self._write_fd, (data,), -1, os.RWF_NOWAIT)
            return self._output.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

        def close(self) -> None:
            """As ``ClientEnd``; the client reads the end of its input once the shim has closed its own copies."""
            self._in.close()
            self._out.close()
            for fd, end in ((self._read_fd, self._input), (self._write_fd, self._output)):
                if end is None:
                    os.close(fd)
                else:
                    end.close()

    def take(
        fds: Sequence[int], examined: InputHolders | None, relay: int, writers: frozenset[int]
    ) -> ClientEnd | None:
        """The offered descriptors as the client's end, or None if they are not taken: then they are closed.

        ``examined`` is what the attestation found at the relay's standard input.
        """
        if len(fds) == 2 and _takeable(fds[0], fds[1], examined):
            return StdioEnd((fds[0], fds[1]), relay, writers)
        for fd in fds:
            os.close(fd)
        return None

    def _takeable(source: int, sink: int, examined: InputHolders | None) -> bool:
        if examined is None or examined.ino is None or not _not_waiting():
            return False
        return os.fstat(source).st_ino == examined.ino and all(
            _anonymous_pipe(fd) or _stream_socket(fd) for fd in (source, sink)
        )

    def _anonymous_pipe(fd: int) -> bool:
        """Whether it is a pipe of the kernel's pipefs; a named one cannot be told not to wait."""
        return stat.S_ISFIFO(os.fstat(fd).st_mode) and str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("pipe:[")

    def _stream_socket(fd: int) -> bool:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as sock:
            return sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM

    def _as_socket(fd: int) -> socket.socket | None:
        return socket.socket(fileno=fd) if stat.S_ISSOCK(os.fstat(fd).st_mode) else None

    def _watched(fd: int, events: int) -> select.epoll:
        watch = select.epoll()
        watch.register(fd, events)
        return watch

    @cache
    def _not_waiting() -> bool:
        """Whether pipes of this kernel can be read without waiting although they are blocking (Linux 6.4)."""
        source, sink = os.pipe()
        try:
            os.preadv(source, (bytearray(1),), -1, os.RWF_NOWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(source)
            os.close(sink)
        return False

else:

    def take(
        fds: Sequence[int], examined: InputHolders | None, relay: int, writers: frozenset[int]
    ) -> ClientEnd | None:
        """Not here: the offer is declined and the shim relays."""
        del examined, relay, writers
        for fd in fds:
            os.close(fd)
        return None
