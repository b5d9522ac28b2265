"""L4: somebody else than the daemon orders."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.system_launcher import (
    ACTIVATE,
    ALICE,
    DAEMON_UID,
    PYTHON,
    Daemon,
    House,
    Started,
    acting_as,
    client,
    send,
)

pytestmark = [pytest.mark.attack("L4"), pytest.mark.root, pytest.mark.linux("the launcher of system mode")]

FOREIGN = """
import os, socket, sys, array
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=int(sys.argv[1]))
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", map(int, sys.argv[2:])))]
control.sendmsg([b"start\\0tell"], rights)
"""


@pytest.mark.parametrize("uid", [0, ALICE])
def test_another_uid_is_hung_up_on(house: House, uid: int):
    """Root, and whoever got past the mode of the socket, is refused by uid before a word is read; the daemon is served."""
    house.register("tell")
    house.path.chmod(0o666)
    order = Started()
    with acting_as(uid):
        control = house.connect()
        with contextlib.suppress(BrokenPipeError):
            send(control, b"start\0tell", order.theirs)
    house.path.chmod(0o600)
    order.sent()
    assert order.word() == [""]
    assert house.noted(f"uid {uid} (process ")
    control.close()
    order.close()
    good = Daemon(house)
    with client(ALICE) as alice:
        assert good.order("tell", alice).word()[0] == "started"
    good.close()


def test_the_mode_keeps_others_out(house: House):
    """Without the daemon's uid the socket cannot even be connected to."""
    with acting_as(ALICE), pytest.raises(PermissionError):
        house.connect()


@pytest.mark.parametrize("uid", [DAEMON_UID, ALICE])
def test_a_connection_that_was_handed_over(house: House, daemon: Daemon, uid: int):
    """The daemon's own orders are served; the first one that another process writes on its connection ends it."""
    house.register("tell")
    with client(ALICE) as alice:
        own = daemon.order("tell", alice)
        assert own.word()[0] == "started"
        foreign = Started()
        fds = [daemon.control.fileno(), *foreign.theirs, alice]
        words = ["setpriv", f"--reuid={uid}", "--clear-groups", PYTHON, "-I", "-c", FOREIGN, *map(str, fds)]
        subprocess.run(words, pass_fds=fds, check=True)
        foreign.sent()
        assert foreign.word() == [""]
        assert daemon.cut_off()
        assert own.ended()
        foreign.close()
    assert house.noted("got a message of process")


def test_a_child_of_the_daemon_is_not_the_daemon(house: House, daemon: Daemon):
    """What the daemon forks has its uid and its connection, and is another process: its order ends the connection."""
    house.register("tell")
    order = Started()
    child = os.fork()
    if child == 0:
        with acting_as(DAEMON_UID):
            send(daemon.control, b"start\0tell", order.theirs)
        os._exit(0)
    os.waitpid(child, 0)
    order.sent()
    assert order.word() == [""]
    assert daemon.cut_off()
    order.close()


def test_the_launcher_listens_to_no_other_kind_of_socket(house: House):
    """Started with a stream socket, or without one of systemd, it refuses to be a launcher."""
    for words, env in (([], {}), (["x"], {"LISTEN_FDS": "1", "LISTEN_PID": "1"})):
        done = subprocess.run(
            [PYTHON, "-I", "-S", str(house.program), *words],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, "expected one of systemd" in done.stderr) == (1, True)
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(house.root / "stream"))
        stream.listen()
        done = subprocess.run(
            [PYTHON, "-c", ACTIVATE, str(stream.fileno()), PYTHON, "-I", "-S", str(house.program)],
            pass_fds=(stream.fileno(),),
            capture_output=True,
            text=True,
            check=False,
        )
    Path(house.root / "stream").unlink()
    assert (done.returncode, "expected a sequenced-packet" in done.stderr) == (1, True)
