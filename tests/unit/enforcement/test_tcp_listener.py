"""The loopback port."""

from __future__ import annotations

import socket

import pytest

from attestd.enforcement.tcp_listener import dressed, http_said, listen_loopback
from attestd.errors import ConfigurationError
from tests.support.http_client import free_port


def test_both_loopback_addresses_and_no_other():
    """One port on each."""
    port = free_port()
    opened = listen_loopback(port)
    try:
        assert [sock.getsockname()[:2] for sock in opened] in (
            [("127.0.0.1", port), ("::1", port)],
            [("127.0.0.1", port)],
        )
        assert not any(sock.getblocking() for sock in opened)
    finally:
        for sock in opened:
            sock.close()


def test_a_port_that_is_taken():
    """Said with what to do; nothing stays open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on port {port}"):
            listen_loopback(port)


def test_a_refusal_in_the_framing_of_the_client():
    """HTTP on TCP; on a Unix socket what its first byte says."""
    line = b'{"error":{}}\n'
    whole = http_said(line)
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in whole
    assert whole.endswith(line)
    for said, expected in ((b"POST /", whole), (b"{", line), (b"", line)):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            theirs.send(said) if said else None
            assert dressed(ours, line) == expected
    with socket.socket(socket.AF_INET) as tcp:
        assert dressed(tcp, line) == whole
