from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from attestd.errors import EvidenceError
from attestd.kernel.linux.holders import input_holders
from tests.support.children import python, running


def test_the_writer_of_a_pipe_is_found():
    """We, who started the relay with a pipe, hold its write end; the relay itself is left out."""
    with running("cat") as relay:
        found = input_holders(relay.pid)
    assert found.kind == "pipe"
    assert found.pids == (os.getpid(),)


def test_a_second_writer_of_a_pipe_is_found():
    """A process that got the write end too is reported, one with a read end is not."""
    read, write = os.pipe()
    with (
        running("cat", stdin=read) as relay,
        running("sleep", "100", pass_fds=[write]) as twin,
        running("sleep", "100", pass_fds=[read]) as reader,
    ):
        found = input_holders(relay.pid)
        os.close(read)
        os.close(write)
    assert set(found.pids) == {os.getpid(), twin.pid}
    assert reader.pid not in found.pids


def test_the_holders_of_a_socket_pair_are_found():
    """Whoever has the other end of the relay's socket can write; a twin is reported."""
    ours, theirs = socket.socketpair()
    with ours, theirs, running("cat", stdin=theirs) as relay, running("sleep", "9", pass_fds=[ours.fileno()]) as twin:
        found = input_holders(relay.pid)
    assert found.kind == "socket"
    assert set(found.pids) == {os.getpid(), twin.pid}


def test_a_named_pipe_counts_as_a_pipe(tmp_path: Path):
    """Writers of a FIFO are found by its path."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    both = os.open(path, os.O_RDWR)
    with running("cat", stdin=both) as relay:
        found = input_holders(relay.pid)
    os.close(both)
    assert (found.kind, found.pids) == ("pipe", (os.getpid(),))


def test_other_inputs_are_named(tmp_path: Path):
    """A file, nothing, and a closed input have no writers to look for."""
    file = tmp_path / "f"
    file.write_text("")
    with file.open() as stream, running("sleep", "9", stdin=stream) as relay:
        assert input_holders(relay.pid).kind == "file"
    with running("sleep", "9", stdin=subprocess.DEVNULL) as relay:
        assert input_holders(relay.pid).kind == "none"
    code = "import os, time; os.close(0); print('ready', flush=True); time.sleep(100)"
    with python(code) as relay:
        assert input_holders(relay.pid).kind == "none"


def test_a_terminal_is_named():
    """A pseudo terminal is a tty."""
    master, slave = os.openpty()
    with running("sleep", "9", stdin=slave) as relay:
        found = input_holders(relay.pid)
    os.close(master)
    os.close(slave)
    assert found.kind == "tty"


def test_a_network_socket_is_unknown():
    """What sock_diag does not pair is not guessed."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        running("sleep", "9", stdin=client) as relay,
    ):
        found = input_holders(relay.pid)
    assert (found.kind, found.complete) == ("unknown", False)


def test_a_process_that_is_gone_is_refused():
    """There is no input of nobody."""
    child = subprocess.Popen([sys.executable, "-I", "-c", ""])
    child.wait()
    with pytest.raises(EvidenceError):
        input_holders(child.pid)
