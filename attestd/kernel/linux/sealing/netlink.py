"""The exchange with nftables: one transaction in one datagram, or one question.

A plain netlink socket, because pyroute2's own sockets drive an event loop of their own (see ``unixdiag``). Every
request of a transaction asks for an acknowledgement; the kernel carries out all of them or none. The question whether
a table exists is asked at every start, so it is encoded here, without loading pyroute2.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_NETLINK_NETFILTER = 12
_NFTABLES = 10
_INET = 1
_GETTABLE = 1
_TABLE_NAME = 1
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=BBH")
_NUMBER = struct.Struct("=i")
_BUFFER = 1 << 20
_PATIENCE = struct.pack("=qq", 5, 0)  # struct timeval of a 64-bit kernel


def commit(requests: list[tuple[Any, int, int]]) -> None:
    """Carry out all requests or none. Raises OSError, the first that the kernel names."""
    parts = [_raw(_BATCH_BEGIN, 0, 0, _NFTABLES)]
    for number, (message, kind, flags) in enumerate(requests, 1):
        parts.append(_encoded(message, _NFTABLES << 8 | kind, flags | _ACK, number))
    parts.append(_raw(_BATCH_END, 0, len(requests) + 1, _NFTABLES))
    with _door() as door:
        _send(door, b"".join(parts))
        waiting = set(range(1, len(requests) + 1))
        while waiting:
            for kind, sequence, body in _messages(door.recv(_BUFFER)):
                if kind == _ERROR:
                    _demand_good(body)
                    waiting.discard(sequence)


def ask(request: tuple[Any, int, int], *, dump: bool) -> list[bytes]:
    """The messages that answer a question. Raises OSError; FileNotFoundError for what does not exist."""
    message, kind, flags = request
    return _asked(_encoded(message, _NFTABLES << 8 | kind, flags | (_DUMP if dump else 0), 1), dump=dump)


def table_exists(name: str) -> bool:
    """Whether there is a table of this name in the inet family. Raises OSError."""
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), _TABLE_NAME) + text + b"\0" * (-len(text) % 4)
    try:
        _asked(_raw(_NFTABLES << 8 | _GETTABLE, 0, 1, 0, family=_INET, body=attribute), dump=False)
    except FileNotFoundError:
        return False
    return True


def _asked(request: bytes, *, dump: bool) -> list[bytes]:
    answers: list[bytes] = []
    with _door() as door:
        _send(door, request)
        while True:
            for found, _, body in _messages(door.recv(_BUFFER)):
                if found == _ERROR:
                    _demand_good(body)
                if found in (_ERROR, _DONE):
                    return answers
                answers.append(body)
                if not dump:
                    return answers


def _door() -> socket.socket:
    door = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    door.bind((0, 0))
    door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
    return door


def _send(door: socket.socket, data: bytes) -> None:
    if door.send(data) != len(data):
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and whole message."""
    while len(data) >= _HEADER.size:
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        yield kind, sequence, data[:length]
        data = data[(length + 3) & ~3 :]


def _demand_good(message: bytes) -> None:
    (number,) = _NUMBER.unpack_from(message, _HEADER.size)
    if number:
        raise OSError(-number, os.strerror(-number))


def _encoded(message: Any, kind: int, flags: int, sequence: int) -> bytes:
    message["header"]["type"] = kind
    message["header"]["flags"] = flags | _REQUEST
    message["header"]["sequence_number"] = sequence
    message["version"] = 0
    message["res_id"] = 0
    message.encode()
    return bytes(message.data)


def _raw(kind: int, flags: int, sequence: int, resource: int, *, family: int = 0, body: bytes = b"") -> bytes:
    length = _HEADER.size + _GENERIC.size + len(body)
    return (
        _HEADER.pack(length, kind, flags | _REQUEST, sequence, 0)
        + _GENERIC.pack(family, 0, socket.htons(resource))
        + body
    )
