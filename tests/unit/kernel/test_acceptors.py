"""Who accepted a connection that we made, with real sockets and processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.evidence.acceptors import Acceptor
from attestd.kernel.linux.tcp.acceptors import LinuxAcceptors

SERVER = """
import os, socket, sys
host = sys.argv[1]
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind((host, int(sys.argv[2])))
s.listen()
print(s.getsockname()[1], flush=True)
kept = []
for line in sys.stdin:
    kept.append(s.accept())
    if line == "fork\\n":
        child = os.fork()
        if child:  # the child says nothing: it would be heard first now and then
            print(child, flush=True)
    else:
        print("accepted", flush=True)
"""


class Server:
    """A process that accepts when it is told to."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        words = [sys.executable, "-c", SERVER, host, str(port)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.host = host
        self.port = int(self.line())

    def line(self) -> str:
        """What it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def accept(self, how: str = "accept") -> str:
        """Accept one connection."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{how}\n")
        self.process.stdin.flush()
        return self.line()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(name="acceptors")
def _acceptors() -> Iterator[LinuxAcceptors]:
    acceptors = LinuxAcceptors()
    yield acceptors
    acceptors.close()
    acceptors.close()


def found(acceptors: LinuxAcceptors, sock: socket.socket, *near: int) -> Acceptor | None:
    """The answer."""
    return acceptors.find(sock.fileno(), near)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_nobody_has_it_until_it_is_accepted(acceptors: LinuxAcceptors, host: str):
    """In the backlog it has no holder; then it has exactly the server, whether we knew where to look or not."""
    server = Server(host)
    try:
        with socket.create_connection((host, server.port)) as sock:
            assert found(acceptors, sock) is None
            assert server.accept() == "accepted"
            first = found(acceptors, sock)
            assert first is not None
            assert (first.pids, first.uid) == ((server.process.pid,), os.getuid())
            assert found(acceptors, sock, server.process.pid) == first
            assert found(acceptors, sock, os.getpid()) == first
            assert acceptors.holds(server.process.pid, first)
            assert not acceptors.holds(os.getpid(), first)
            sock.setblocking(True)
            server.close()
            assert not acceptors.holds(server.process.pid, first)
    finally:
        server.close()


def test_two_listeners_on_one_port(acceptors: LinuxAcceptors):
    """With SO_REUSEPORT the kernel chooses: each connection is of who accepted it, not of who listens."""
    one = Server()
    two = Server(port=one.port)
    pids = {one.process.pid, two.process.pid}
    connections = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(24)]
    try:
        for _ in connections:  # nobody knows whose queue is empty
            for server in (one, two):
                assert server.process.stdin is not None
                server.process.stdin.write("accept\n")
                server.process.stdin.flush()
        seen: set[int] = set()
        for sock in connections:
            answer = None
            while answer is None:
                answer = found(acceptors, sock)
            assert len(answer.pids) == 1
            seen.update(answer.pids)
        assert seen == pids
    finally:
        for each in (*connections, one, two):
            each.close()


def test_several_holders(acceptors: LinuxAcceptors):
    """A child that inherited the connection holds it as well."""
    server = Server()
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            child = int(server.accept("fork"))
            answer = found(acceptors, sock)
            assert answer is not None
            assert set(answer.pids) == {server.process.pid, child}
            os.kill(child, 9)
    finally:
        server.close()


def test_a_connection_that_is_over(acceptors: LinuxAcceptors):
    """Closed by the server it is nobody's for as long as the kernel keeps it; closed by both there is nothing to ask about."""
    server = Server()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        server.accept()
        server.close()
        assert sock.recv(1) == b""
        assert found(acceptors, sock) is None
        sock.shutdown(socket.SHUT_WR)

        def wait_for_the_end() -> None:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                assert found(acceptors, sock) is None

        with pytest.raises(EvidenceError) as error:
            wait_for_the_end()
        assert error.value.cause in {Cause.PEER_GONE, Cause.UNATTESTABLE}


def test_what_is_no_loopback_connection(acceptors: LinuxAcceptors):
    """A Unix socket has no such answer."""
    one, two = socket.socketpair()
    with one, two, pytest.raises(EvidenceError) as error:
        found(acceptors, one)
    assert error.value.cause is Cause.UNATTESTABLE
