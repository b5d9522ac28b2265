"""The loopback port: HTTP for all servers, for clients that know only URLs.

Never another address than 127.0.0.1 and ::1. Everything but the socket is as for a Unix socket (``listener``).
"""

from __future__ import annotations

import errno
import socket
from http import HTTPStatus

from attestd.enforcement.first_byte import speaks_http
from attestd.enforcement.listener import BACKLOG
from attestd.errors import ConfigurationError
from attestd.wire.http_response import json_head

ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_ABSENT = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def listen_loopback(port: int) -> list[socket.socket]:
    """Non-blocking listeners on both loopback addresses; IPv6 only where the machine has it.

    Raises:
        ConfigurationError: The port is taken.
    """
    opened: list[socket.socket] = []
    try:
        for family, address in ADDRESSES:
            sock = _listener(family, address, port)
            if sock is not None:
                opened.append(sock)
    except OSError as error:
        for sock in opened:
            sock.close()
        raise ConfigurationError(
            f"cannot listen on port {port} of the loopback addresses: {error.strerror}",
            hint="choose another listen.port, or find out who has it",
        ) from error
    return opened


def http_said(line: bytes) -> bytes:
    """One line of JSON as a whole HTTP answer after which the connection ends."""
    return json_head(HTTPStatus.OK, (line,), {}, close=True) + line


def dressed(connection: socket.socket, line: bytes) -> bytes:
    """A refusal in the framing that the client speaks, as far as its first byte tells."""
    if connection.family != socket.AF_UNIX:
        return http_said(line)
    try:
        first = connection.recv(1, socket.MSG_PEEK)
    except OSError:
        first = b""
    return http_said(line) if speaks_http(first) else line


def _listener(family: socket.AddressFamily, address: str, port: int) -> socket.socket | None:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno in _ABSENT and family is socket.AF_INET6:
            return None
        raise
    try:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno in _ABSENT and family is socket.AF_INET6:
            return None
        raise
    return sock
