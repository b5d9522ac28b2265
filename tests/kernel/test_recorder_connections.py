"""Who connected a socket, recorded at the moment of connect."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.evidence.recorder import Connection
from attestd.kernel.linux.recorder.reader import BpfRecorder
from tests.support.children import running
from tests.support.recorder import eventually, key_of, recording

pytestmark = pytest.mark.root

SO_COOKIE = 57
CONNECT = """
import socket, struct, sys
family, address = int(sys.argv[1]), eval(sys.argv[2])
s = socket.socket(family)
s.connect(address)
print(struct.unpack('Q', s.getsockopt(1, 57, 8))[0], flush=True)
sys.stdin.readline()
"""


@pytest.fixture(name="recorder", scope="module")
def _recorder() -> Iterator[BpfRecorder]:
    with recording() as root:
        reader = BpfRecorder.open(root)
        yield reader
        reader.close()


def listener(family: int, directory: Path) -> socket.socket:
    """A listening socket of that family."""
    listening = socket.socket(family)
    address: object = str(directory / "s")
    if family != socket.AF_UNIX:
        address = ("::1", 0) if family == socket.AF_INET6 else ("127.0.0.1", 0)
    listening.bind(address)
    listening.listen()
    return listening


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX], ids=["ipv4", "ipv6", "unix"])
def test_the_connector(recorder: BpfRecorder, short_tmp: Path, family: int):
    """127.0.0.1, ::1 and Unix sockets: the cookie names the process, its image at that time, and the family."""
    with listener(family, short_tmp) as listening:
        arguments = (str(int(family)), repr(listening.getsockname()))
        with running(sys.executable, "-I", "-c", CONNECT, *arguments) as child:
            assert child.stdout is not None
            cookie = int(child.stdout.readline())
            found = recorder.connection(cookie)
            record = recorder.process(key_of(child.pid))
            assert found is not None
            assert record is not None
            assert found == Connection(
                cookie=cookie,
                key=record.key,
                exec_counter=record.exec_counter,
                family=int(family),
                time_ns=found.time_ns,
            )
            assert record.exec_ns < found.time_ns
        assert recorder.connection(cookie) == found, "a client that has gone is still known"


def test_an_exec_after_connect_shows(recorder: BpfRecorder, short_tmp: Path):
    """The counter of the connection stays behind the counter of the process that executed another program."""
    code = CONNECT + "\nimport os; s.set_inheritable(True); os.execv('/bin/sleep', ['sleep', '100'])"
    with (
        listener(socket.AF_UNIX, short_tmp) as listening,
        running(sys.executable, "-I", "-c", code, "1", repr(listening.getsockname())) as child,
    ):
        assert child.stdout is not None
        assert child.stdin is not None
        cookie = int(child.stdout.readline())
        child.stdin.write("go\n")
        child.stdin.flush()
        record = eventually(lambda: (r := recorder.process(key_of(child.pid))) and r.comm == "sleep" and r)
        found = recorder.connection(cookie)
        assert found is not None
        assert found.key == record.key
        assert found.exec_counter == record.exec_counter - 1


def test_a_second_connector_shows(recorder: BpfRecorder, short_tmp: Path):
    """Two processes that call connect on one socket make it contested."""
    code = (
        "import socket, struct, sys, os\ns = socket.socket(socket.AF_UNIX)\n"
        "if (pid := os.fork()) == 0:\n"
        "    try: s.connect(sys.argv[1] + '.none')\n    except OSError: pass\n    os._exit(0)\n"
        "os.waitpid(pid, 0); s.connect(sys.argv[1])\n"
        "print(struct.unpack('Q', s.getsockopt(1, 57, 8))[0], flush=True); sys.stdin.readline()"
    )
    with (
        listener(socket.AF_UNIX, short_tmp) as listening,
        running(sys.executable, "-I", "-c", code, listening.getsockname()) as child,
    ):
        assert child.stdout is not None
        found = recorder.connection(int(child.stdout.readline()))
        assert found is not None
        assert found.contested
        assert found.key.pid == child.pid


def test_the_client_gone_before_accept(recorder: BpfRecorder, short_tmp: Path):
    """A client that connects and exits at once is known by its cookie."""
    del short_tmp
    with socket.create_server(("127.0.0.1", 0)) as listening:
        code = CONNECT.replace("sys.stdin.readline()", "")
        with running(sys.executable, "-I", "-c", code, "2", repr(listening.getsockname())) as child:
            out, _ = child.communicate(timeout=20)
        found = recorder.connection(int(out))
        assert found is not None
        assert found.key.pid == child.pid
        record = recorder.process(found.key)
        assert record is not None
        assert record.exited_ns is not None


def test_a_socket_that_never_connected(recorder: BpfRecorder):
    """There is no record for it."""
    with socket.socket() as unconnected:
        (cookie,) = struct.unpack("Q", unconnected.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))
    assert recorder.connection(cookie) is None
