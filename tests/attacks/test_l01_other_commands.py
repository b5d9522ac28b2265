"""L1: a daemon that is somebody else's by now wants another program, other words, another environment, another file."""

from __future__ import annotations

import pytest

from tests.support.system_launcher import ALICE, TELL, Daemon, House, client

pytestmark = [pytest.mark.attack("L1"), pytest.mark.root, pytest.mark.linux("the launcher of system mode")]

OTHERS = [
    b"start\0../tell",
    b"start\0/etc/passwd",
    b"start\0..",
    b"start\0.tell",
    b"start\0tell/../tell",
    b"start\0tell\0",
    b"start\0tell\n",
    b"start\0tell.toml\0--evil",
    b"start\0TELL",
    b"start\0t\xc3\xa9ll",
    b"start\0",
    b"start\0" + b"a" * 65,
    b"run\0tell",
    b"\0",
    b"start\0tell\0/bin/sh\0-c\0id",
    b"2000\0/bin/sh\0/\0" + b"3\0sh\0-c\0id\0" + b"0\0LD_PRELOAD=/tmp/evil.so",
]


def test_what_root_registered_runs_and_nothing_else(house: House, daemon: Daemon):
    """Words and environment of a started server are those of its file, whatever the environment of daemon and launcher is."""
    house.register("tell", TELL, "a", "b c; id", env={"A": "$(id)", "PATH": "/usr/bin:/bin"})
    with client(ALICE) as alice:
        order = daemon.order("tell", alice)
        assert order.word()[0] == "started"
        found = order.told()
    assert found["argv"] == ["a", "b c; id"]
    assert found["env"] == {
        "A": "$(id)",
        "PATH": "/usr/bin:/bin",
        "HOME": "/",
        "USER": str(ALICE),
        "LOGNAME": str(ALICE),
        "LANG": "C.UTF-8",
    }


@pytest.mark.parametrize("message", OTHERS, ids=range(len(OTHERS)))
def test_another_message_ends_the_connection(house: House, daemon: Daemon, message: bytes):
    """Paths, words, variables and the orders of user mode are no names: nothing is started, and the connection ends."""
    house.register("tell")
    with client(ALICE) as alice:
        order = daemon.order("", alice, message=message)
        assert order.word() == [""]
    assert daemon.cut_off()
    assert house.noted("expected the name of a server")


def test_a_file_outside_of_the_registry_is_not_found(house: House, daemon: Daemon):
    """A name finds its file in the registry only: one that lies beside it, or has another name inside, starts nothing."""
    outside = house.register("stray")
    outside.rename(house.registry.parent / "stray.toml")
    house.register("alias").write_text(house.register("tell").read_text())
    with client(ALICE) as alice:
        stray, alias = daemon.order("stray", alice), daemon.order("alias", alice)
        assert stray.word()[:1] == ["refused"]
        assert alias.word()[:2] == ["refused", "its file says server.name = 'tell'"]
    assert not daemon.orders[0].pid


def test_a_server_that_is_not_started_cannot_be_ordered(house: House, daemon: Daemon):
    """The file of a server on a socket is no command, even if it has one."""
    house.write("far", '[server]\nname = "far"\ntransport = "unix"\nsocket = "/s"\ncommand = ["/bin/sh"]\n')
    with client(ALICE) as alice:
        assert daemon.order("far", alice).word()[:2] == [
            "refused",
            "it is not one that is started: its transport is not stdio",
        ]
