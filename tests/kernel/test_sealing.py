"""The kernel's seals against real connections, in a network namespace that the test makes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.evidence.sealing import Door, Guard
from attestd.kernel.linux.sealing.sealer import SO_MARK, LinuxSealer, guards_of, remove_table, tables
from tests.support.network import own_network

pytestmark = pytest.mark.root
ADDRESSES = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    with own_network():
        yield


@pytest.fixture(name="sealer")
def _sealer(tmp_path: Path) -> LinuxSealer:
    return LinuxSealer(tmp_path)


class Server:
    """Listens on one port of every address of this machine and takes note of who arrives."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port = int(self.sock.getsockname()[1])
        self.sock.settimeout(5)

    def hears(self, client: socket.socket) -> bool:
        """Whether a connected client's bytes arrive here."""
        accepted, _ = self.sock.accept()
        with accepted:
            client.sendall(b"x")
            return accepted.recv(1) == b"x"


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    server = Server()
    with server.sock:
        yield server


@contextlib.contextmanager
def opened(sealer: LinuxSealer) -> Iterator[dict[str, tuple[Door, socket.socket]]]:
    """The sealer's listeners."""
    doors = {door.family: (door, socket.socket(fileno=door.fd)) for door in sealer.doors()}
    try:
        yield doors
    finally:
        for _, sock in doors.values():
            sock.close()


def connect(port: int, address: str = "127.0.0.1", through: LinuxSealer | None = None) -> socket.socket:
    """A connection, marked by a sealer if one is named."""
    sock = socket.socket(ADDRESSES.get(address, socket.AF_INET))
    sock.settimeout(5)
    try:
        if through is not None:
            through.let_through(sock.fileno())
        sock.connect((address, port))
    except OSError:
        sock.close()
        raise
    return sock


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "127.0.0.2"])
def test_only_what_is_marked_passes(sealer: LinuxSealer, server: Server, address: str):
    """Before: anybody. Sealed: a reset for anybody on every address, the marked one arrives. Removed: anybody."""
    with connect(server.port, address) as client:
        assert server.hears(client)
    sealer.replace((Guard(server="x", port=server.port),))
    with pytest.raises(ConnectionRefusedError):
        connect(server.port, address)
    with connect(server.port, address, sealer) as client:
        assert server.hears(client)
    sealer.remove()
    with connect(server.port, address) as client:
        assert server.hears(client)


@pytest.mark.parametrize("address", list(ADDRESSES))
def test_redirected_connections_keep_their_addresses(sealer: LinuxSealer, server: Server, address: str):
    """They arrive at our listener, whose accepted socket has the address that the client chose; marked ones do not."""
    family = "ip" if ADDRESSES[address] is socket.AF_INET else "ip6"
    with opened(sealer) as doors:
        ports = {name: door.port for name, (door, _) in doors.items()}
        sealer.replace((Guard(server="x", port=server.port, **ports),))
        with connect(server.port, address) as client:
            accepted, _ = doors[family][1].accept()
            with accepted:
                assert accepted.getsockname()[:2] == (address, server.port)
                assert accepted.getpeername() == client.getsockname()
                payload = os.urandom(1 << 20)
                sender = threading.Thread(target=client.sendall, args=(payload,))
                sender.start()
                accepted.settimeout(5)
                accepted.setblocking(True)
                received = b""
                while len(received) < len(payload):
                    received += accepted.recv(1 << 16)
                sender.join()
                assert received == payload
        with connect(server.port, address, sealer) as client:
            assert server.hears(client)


def test_nobody_takes_the_place_of_a_dead_listener(sealer: LinuxSealer, server: Server):
    """A program that binds the port of our listener gets no client, even where it may reuse the address."""
    with opened(sealer) as doors:
        port = doors["ip"][0].port
        sealer.replace((Guard(server="x", port=server.port, ip=port),))
    with socket.create_server(("127.0.0.1", port), reuse_port=True) as impostor:
        impostor.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            connect(server.port)
        with pytest.raises(BlockingIOError):
            impostor.accept()


def test_a_connection_that_is_older_is_cut(sealer: LinuxSealer, server: Server):
    """With its next packet, also where connections are redirected."""
    with connect(server.port) as client, opened(sealer) as doors:
        accepted, _ = server.sock.accept()
        with accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
            sealer.replace((Guard(server="x", port=server.port, ip=doors["ip"][0].port),))
            client.sendall(b"y")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            accepted.setblocking(False)
            with pytest.raises(BlockingIOError):
                accepted.recv(1)


def test_our_own_connections_survive_the_sealing(sealer: LinuxSealer, server: Server):
    """What was marked before the port was sealed goes on."""
    with connect(server.port, through=sealer) as client:
        accepted, _ = server.sock.accept()
        with accepted:
            sealer.replace((Guard(server="x", port=server.port),))
            client.sendall(b"z")
            assert accepted.recv(1) == b"z"


def test_replacing_leaves_no_gap(sealer: LinuxSealer, server: Server):
    """While the rules are exchanged hundreds of times, by other processes' marks too, no direct connection arrives."""
    guard = Guard(server="x", port=server.port)
    sealer.replace((guard,))
    done = threading.Event()

    def exchange() -> None:
        for number in range(150):
            sealer.replace((guard, Guard(server="y", port=1 + number)))
        done.set()

    exchanger = threading.Thread(target=exchange)
    exchanger.start()
    attempts = 0
    while not done.is_set():
        attempts += 1
        with pytest.raises(ConnectionRefusedError):
            connect(server.port)
    exchanger.join()
    assert attempts > 150


def test_what_the_kernel_has_is_read_back(sealer: LinuxSealer, tmp_path: Path):
    """By this process, by the next one of the same instance, and by whoever looks at every instance."""
    guards = (Guard(server="a.b-c_d", port=1, ip=2, ip6=3), Guard(server="x" * 64, port=65535))
    assert (sealer.exists(), sealer.guards(), tables()) == (False, (), ())
    sealer.replace(guards)
    other = LinuxSealer(tmp_path / "other")
    other.replace(guards[:1])
    assert LinuxSealer(tmp_path).guards() == guards
    assert set(tables()) == {sealer.table, other.table}
    sealer.replace(guards[1:])
    assert sealer.guards() == guards[1:]
    remove_table(sealer.table)
    remove_table(sealer.table)
    assert not sealer.exists()
    assert guards_of(other.table) == guards[:1]


def test_another_instance_does_not_pass(sealer: LinuxSealer, server: Server, tmp_path: Path):
    """The mark of one process is not the mark of another, not even of the same instance."""
    sealer.replace((Guard(server="x", port=server.port),))
    with pytest.raises(ConnectionRefusedError):
        connect(server.port, through=LinuxSealer(tmp_path))


def test_nothing_passes_from_another_network(sealer: LinuxSealer, server: Server):
    """A process that has every right over a network of its own does not reach this loopback at all."""
    sealer.replace((Guard(server="x", port=server.port),))
    with own_network(), pytest.raises(ConnectionRefusedError):
        connect(server.port, through=sealer)


UNPRIVILEGED = """
import socket, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from attestd.evidence.sealing import Guard, SealError
from attestd.kernel.linux.sealing.sealer import LinuxSealer
sealer = LinuxSealer(Path(sys.argv[1]))
sock = socket.socket()
acts = [sealer.exists, sealer.remove, sealer.doors, lambda: sealer.replace((Guard(server="x", port=1),)),
        lambda: sealer.let_through(sock.fileno())]
for act in acts:
    try:
        print("done", act())
    except SealError as error:
        print("NET_ADMIN" in error.hint, error.message)
"""


def test_without_the_capability(sealer: LinuxSealer, tmp_path: Path):
    """Nothing of a seal can be made, looked at, undone or passed, and the error says what is missing."""
    sealer.replace((Guard(server="x", port=1),))
    root = Path(__file__).parents[2]
    words = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-all", "--", sys.executable, "-c"]
    done = subprocess.run(
        [*words, UNPRIVILEGED, str(tmp_path), str(root)], capture_output=True, text=True, check=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("True cannot ") and line.endswith("no right to change nftables") for line in lines), (
        lines
    )
    assert sealer.exists()


def test_a_mark_needs_a_capability():
    """The kernel fact that sealing rests on: an ordinary process cannot set the mark of its packets."""
    source = "import socket; s = socket.socket()\ntry: s.setsockopt(1, 36, 1)\nexcept OSError as e: print(e.errno)"
    done = subprocess.run(
        ["setpriv", "--reuid=60001", "--clear-groups", "/usr/bin/python3", "-c", source],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == errno.EPERM
    assert SO_MARK == 36


def test_a_mark_of_another_user_namespace_is_none(sealer: LinuxSealer, server: Server):
    """Whoever is root in a user namespace of its own cannot mark a socket of this network."""
    sealer.replace((Guard(server="x", port=server.port),))
    source = "import socket; s = socket.socket()\ntry: s.setsockopt(1, 36, 1)\nexcept OSError as e: print(e.errno)"
    done = subprocess.run(
        [
            "setpriv",
            "--reuid=60001",
            "--clear-groups",
            "unshare",
            "--user",
            "--map-root-user",
            "/usr/bin/python3",
            "-c",
            source,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("unprivileged user namespaces are not allowed here")
    assert int(done.stdout) == errno.EPERM


HOLDER = """
import socket, time
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, 36, 1)
print(sock.fileno(), flush=True)
time.sleep(60)
"""
THIEF = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pidfd = os.pidfd_open(int(sys.argv[1]))
print(ctypes.get_errno() if libc.syscall(438, pidfd, int(sys.argv[2]), 0) < 0 else 0)
"""


@pytest.mark.parametrize(("ambient", "expected"), [("+net_admin", errno.EPERM), ("-all", 0)])
def test_a_marked_socket_is_not_taken_from_a_daemon_with_the_capability(ambient: str, expected: int):
    """Another program of the same user may copy a descriptor out of a process, but not out of one that has more
    capabilities than itself."""
    user = ["setpriv", "--reuid=60001", "--regid=60001", "--clear-groups"]
    holding = HOLDER if expected else HOLDER.replace("sock.setsockopt", "str or sock.setsockopt")
    holder = subprocess.Popen(
        [*user, f"--inh-caps={ambient}", f"--ambient-caps={ambient}", "/usr/bin/python3", "-c", holding],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    with holder:
        try:
            number = holder.stdout.readline().strip()
            done = subprocess.run(
                [*user, "/usr/bin/python3", "-c", THIEF, str(holder.pid), number],
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            holder.kill()
    if int(done.stdout) != expected and expected == 0:
        pytest.skip("this kernel lets no program take a descriptor (yama)")
    assert int(done.stdout) == expected
