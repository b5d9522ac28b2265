"""One accepted control connection: lines in, lines out, both bounded in size and time, every byte from one writer.

Each read comes with the kernel's word on who wrote (``enforcement.writers``). Descriptors that a client sends along are
closed, and the connection ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

from attestd.control.lines import Done, Failure, Hello, encode
from attestd.control.messages import REQUEST_BYTES
from attestd.enforcement.writers import read_all
from attestd.errors import NotPermittedError, UsageError

_READ_BYTES: Final = 64 * 1024


class ProofError(NotPermittedError):
    """The caller is no longer who was attested: nothing more is served on this connection."""


class Connection:
    """Reads lines, writes lines, notices a client that goes."""

    def __init__(self, sock: socket.socket, *, request_s: float, write_s: float) -> None:
        self.sock = sock
        self.broken: OSError | None = None
        """Why nothing can be read or written any more."""
        self._request_s = request_s
        self._write_s = write_s
        self._buffer = bytearray()

    async def line(self, writer: int) -> bytes:
        """Return the next line, without its newline. Raises UsageError, ProofError, EOFError, OSError (timeouts)."""
        async with asyncio.timeout(self._request_s):
            searched = 0
            while (end := self._buffer.find(b"\n", searched)) < 0 and len(self._buffer) <= REQUEST_BYTES:
                searched = len(self._buffer)
                await self._readable()
                self._receive(writer)
        if not 0 <= end <= REQUEST_BYTES:
            raise UsageError(f"cannot read the request: expected at most {REQUEST_BYTES} bytes in one line")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _receive(self, writer: int) -> None:
        try:
            data, written_by, descriptors, cut = read_all(self.sock, _READ_BYTES, 0)
        except BlockingIOError:
            return
        except OSError as error:
            self.broken = error
            raise
        for descriptor in descriptors:
            os.close(descriptor)
        if cut or descriptors:
            raise ProofError("cannot take descriptors on the control socket")
        if not data:
            raise EOFError
        if written_by != writer:
            raise ProofError(
                f"cannot accept a request of pid {written_by}: pid {writer} made this connection",
                hint="each process must make its own connection",
            )
        self._buffer += data

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        descriptor = self.sock.fileno()
        loop.add_reader(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(descriptor)

    async def until_done_or_gone(self, work: asyncio.Task[None]) -> None:
        """Wait for ``work``; cancel it when the client hangs up or sends more before it has its answer."""
        if self._buffer:
            work.cancel()
        noticed = asyncio.get_running_loop().create_task(self._readable())
        try:
            await asyncio.wait((work, noticed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            noticed.cancel()
            work.cancel()  # does nothing to work that is done
            # Both must have ended: the one holds the loop's only reader of this socket, the other may be writing.
            await asyncio.wait((work, noticed))

    async def send(self, line: Hello | Done | Failure) -> None:
        """Send one protocol line."""
        await self.write(encode(line))

    async def write(self, data: bytes) -> None:
        """Send all of ``data``. Raises OSError, TimeoutError among them where the client does not read in time."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.sock_sendall(self.sock, data), self._write_s)
        except OSError as error:
            self.broken = error
            raise
