"""One question to a service on the D-Bus system bus.

Each question has a connection of its own that ends with the answer: nothing outlives a question, and a bus that was
started again is no special case. The messages are jeepney's; the bytes are moved here, on the daemon's loop.

The bus is believed because root listens at its fixed path: no environment variable names another. That an answer
comes from the owner of the name that was asked is the bus's word.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from attestd.errors import AttestdError

SYSTEM_BUS: Final = Path("/run/dbus/system_bus_socket")
HELLO_S: Final = 10.0
UNDO_S: Final = 2.0
LIMIT_BYTES: Final = 4 << 20
"""The longest answer: polkit's list of actions of a full desktop has some 100 KB."""
_READ_BYTES: Final = 64 * 1024
_UCRED: Final = struct.Struct("3i")
_PEERCRED: Final = 17
_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    RecursionError,
    struct.error,
)
"""What jeepney may raise for bytes that are not D-Bus."""


class BusError(AttestdError):
    """The bus cannot be reached, or does not say what can be read."""

    code = "bus"


class RemoteBusError(BusError):
    """The service, or the bus in its place, answered with an error."""


@dataclass(frozen=True, slots=True)
class Call:
    """A method call."""

    destination: str
    path: str
    interface: str
    member: str
    signature: str
    body: tuple[Any, ...]
    """Values for jeepney; a descriptor (``h``) is passed and stays the caller's."""


async def ask(bus: Path, call: Call, *, seconds: float, undo: Call | None = None) -> tuple[Any, ...]:
    """The body of the answer. ``undo`` is sent where nobody waits for it any more.

    Raises BusError (no answer in time among them), RemoteBusError.
    """
    connection = await _Connection.open(bus)
    serial = 2
    try:
        connection.send(call, serial)
        try:
            async with asyncio.timeout(seconds):
                return await connection.answer(serial)
        except TimeoutError as error:
            await connection.take_back(undo)
            raise BusError(f"{call.destination} did not answer within {seconds:g} s") from error
        except asyncio.CancelledError:
            await connection.take_back(undo)
            raise
    except OSError as error:
        raise BusError(f"the connection to the system bus broke: {error.strerror or error}") from error
    finally:
        connection.close()


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        from jeepney.low_level import Parser  # noqa: PLC0415 - only who asks needs it

        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._parser = Parser()
        self._received = 0

    @classmethod
    async def open(cls, bus: Path) -> _Connection:
        """A connection that has said hello. Raises BusError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        try:
            async with asyncio.timeout(HELLO_S):
                await asyncio.get_running_loop().sock_connect(sock, str(bus))
                _require_root(sock, bus)
                connection = cls(sock)
                await connection._introduce()
        except TimeoutError as error:
            sock.close()
            raise BusError(f"the system bus at {bus} did not answer within {HELLO_S:g} s") from error
        except OSError as error:
            sock.close()
            raise BusError(
                f"the system bus cannot be reached at {bus}: {error.strerror or error}",
                hint="install and start dbus and polkitd, or decide as root",
            ) from error
        except BaseException:
            sock.close()
            raise
        return connection

    def send(self, call: Call, serial: int) -> None:
        """Send one message whole; it fits into an empty socket. Raises OSError, BusError."""
        from jeepney import DBusAddress, new_method_call  # noqa: PLC0415 - see above

        address = DBusAddress(call.path, bus_name=call.destination, interface=call.interface)
        message = new_method_call(address, call.member, call.signature or None, call.body)
        descriptors = array.array("i")
        data = message.serialise(serial, fds=descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
        if self._sock.sendmsg([data], ancillary) != len(data):
            raise BusError("the system bus takes no message")

    async def answer(self, serial: int) -> tuple[Any, ...]:
        """The body of the answer to this message. Raises OSError, RemoteBusError, BusError."""
        from jeepney import HeaderFields, MessageType  # noqa: PLC0415 - see above

        while True:
            try:
                message = self._parser.get_next_message()
                if message is not None:
                    fields, kind, body = message.header.fields, message.header.message_type, message.body
            except _UNREADABLE as error:
                raise BusError(f"cannot read the answer on the system bus: {type(error).__name__}") from error
            if message is None:
                await self._receive()
            elif fields.get(HeaderFields.reply_serial) != serial:
                continue  # a signal: the bus tells every newcomer its name
            elif kind is MessageType.method_return:
                return tuple(body)
            else:
                said = body[0] if body and isinstance(body[0], str) else ""
                raise RemoteBusError(f"{fields.get(HeaderFields.error_name)}: {said}"[:300])

    async def take_back(self, undo: Call | None) -> None:
        """Say that the answer is not wanted any more, as far as that is possible."""
        if undo is None:
            return
        try:
            self.send(undo, 3)
            async with asyncio.timeout(UNDO_S):
                await self.answer(3)
        except (OSError, BusError):  # a time-out among them: the connection ends, which says the same
            return

    def close(self) -> None:
        """End it."""
        self._sock.close()

    async def _introduce(self) -> None:
        from jeepney.auth import BEGIN, AuthenticationError, Authenticator  # noqa: PLC0415 - see above

        talk = Authenticator(enable_fds=True)
        try:
            for said in talk:
                await self._loop.sock_sendall(self._sock, said)
                talk.feed(await self._loop.sock_recv(self._sock, _READ_BYTES) or b"\r\n")
            await self._loop.sock_sendall(self._sock, BEGIN)
        except AuthenticationError as error:
            raise BusError(f"the system bus does not accept uid {os.geteuid()}: {error}"[:300]) from error
        name, path = "org.freedesktop.DBus", "/org/freedesktop/DBus"
        self.send(Call(name, path, name, "Hello", "", ()), 1)
        await self.answer(1)

    async def _receive(self) -> None:
        data = await self._loop.sock_recv(self._sock, _READ_BYTES)
        self._received += len(data)
        if not data:
            raise BusError("the system bus closed the connection")
        if self._received > LIMIT_BYTES:
            raise BusError(f"the answer on the system bus is longer than {LIMIT_BYTES} bytes")
        self._parser.add_data(data)


def _require_root(sock: socket.socket, bus: Path) -> None:
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, _PEERCRED, _UCRED.size))
    if uid != 0:
        raise BusError(f"uid {uid} listens at {bus}, expected root", hint="find out what listens there")
