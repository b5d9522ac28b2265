"""L5: too much, too long, the wrong kind."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from attestd.launch.system import CONNECTIONS
from tests.support.attackers import until
from tests.support.system_launcher import ALICE, DAEMON_UID, Daemon, House, Started, acting_as, client, send

pytestmark = [pytest.mark.attack("L5"), pytest.mark.root, pytest.mark.linux("the launcher of system mode")]


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def desk(house: House, daemon: Daemon) -> int:
    """The launcher's process for this connection: the youngest of its children."""
    del daemon
    assert house.process is not None
    return max(map(int, Path(f"/proc/{house.process.pid}/task/{house.process.pid}/children").read_text().split()))


@pytest.mark.parametrize("extra", [1, 3, 240])
def test_extra_descriptors(house: House, daemon: Daemon, extra: int):
    """An order with more descriptors than it needs ends the connection and starts nothing."""
    house.register("tell")
    with client(ALICE) as alice:
        more = [os.dup(0) for _ in range(extra)]
        order = Started()
        with acting_as(DAEMON_UID):
            send(daemon.control, b"start\0tell", [*order.theirs, alice, *more])
        order.sent()
        for fd in more:
            os.close(fd)
        assert order.word() == [""]
        order.close()
    assert daemon.cut_off()


def test_too_few_descriptors_and_wrong_ones(house: House):
    """Files, sockets or pipes the wrong way round in the place of a server's streams and line are refused."""
    house.register("tell")
    stream, other = socket.socketpair()
    with Path("/etc/shadow").open("rb") as file, client(ALICE) as alice:
        for change in ({0: file.fileno()}, {1: file.fileno()}, {3: stream.fileno()}, {0: 1, 1: 0}, {3: 0}):
            daemon, order = Daemon(house), Started()
            fds = [*order.theirs, alice]
            changed = [change.get(place, fd) for place, fd in enumerate(fds)]
            changed = [fds[fd] if change == {0: 1, 1: 0} and fd in (0, 1) else fd for fd in changed]
            with acting_as(DAEMON_UID):
                send(daemon.control, b"start\0tell", changed)
            order.sent()
            assert order.word() == [""]
            assert daemon.cut_off()
            order.close()
            daemon.close()
    stream.close()
    other.close()


@pytest.mark.parametrize("size", [81, 5000, 100_000])
def test_oversize(house: House, daemon: Daemon, size: int):
    """A message above 80 bytes ends the connection."""
    house.register("tell")
    with client(ALICE) as alice:
        assert daemon.order("", alice, message=b"start\0tell".ljust(size, b"l")).word() == [""]
    assert daemon.cut_off()


def test_a_message_without_descriptors(house: House, daemon: Daemon):
    """Names alone start nothing."""
    house.register("tell")
    with acting_as(DAEMON_UID):
        send(daemon.control, b"start\0tell", [])
    assert daemon.cut_off()


def test_a_flood_of_refused_orders_costs_nothing(house: House, daemon: Daemon):
    """Hundreds of orders for servers that are not there leave no descriptor and no process behind, and the next is served."""
    house.register("tell")
    with client(ALICE) as alice:
        assert daemon.order("nosuch", alice).word()[0] == "refused"
        served = desk(house, daemon)
        before = descriptors(served)
        for _ in range(300):
            order = daemon.order("nosuch", alice)
            assert order.word()[0] == "refused"
            order.close()
        until(lambda: descriptors(served) <= before, "the end of the last order")
        assert Path(f"/proc/{served}/task/{served}/children").read_text() == ""
        assert daemon.order("tell", alice).word()[0] == "started"


def test_a_flood_of_starts(house: House, daemon: Daemon):
    """Sixty servers started at once all run and all end with the connection."""
    house.register("tell")
    with client(ALICE) as alice:
        orders = [daemon.order("tell", alice) for _ in range(60)]
        assert {order.word()[0] for order in orders} == {"started"}
        daemon.control.close()
        assert all(order.ended() for order in orders)


def test_a_flood_of_connections(house: House, daemon: Daemon):
    """More connections than a restart needs are hung up on; those that are open go on, and there is room again later."""
    house.register("tell")
    more = [Daemon(house) for _ in range(CONNECTIONS + 20)]
    assert house.noted(f"{CONNECTIONS} connections of the daemon are open already")
    with client(ALICE) as alice:
        assert daemon.order("tell", alice).word()[0] == "started"
        assert more[-1].cut_off()
        for each in more:
            each.close()
        for _ in range(100):
            again = Daemon(house)
            order = Started()
            taken = True
            with acting_as(DAEMON_UID):
                try:
                    send(again.control, b"start\0tell", [*order.theirs, alice])
                except BrokenPipeError:
                    taken = False
            order.sent()
            served = taken and order.word()[0] == "started"
            order.close()
            again.close()
            if served:
                break
        assert served
