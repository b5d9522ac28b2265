"""L8: a server, or what it forked, tries to outlive the daemon that it was started for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.launching import HYDRA, Mark, parent
from tests.support.system_launcher import ALICE, Daemon, House, Started, client, house

pytestmark = [pytest.mark.attack("L8"), pytest.mark.root, pytest.mark.linux("the launcher of system mode")]

HOPPER = (
    "import os,signal\nfor s in (1,2,15): signal.signal(s, signal.SIG_IGN)\n\n"
    "if os.fork():\n    print('ready', flush=True)\n    while True: signal.pause()\n"
    "while True:\n    if os.fork(): os._exit(0)\n    os.setsid()\n"
)


@pytest.fixture(name="mark")
def _mark() -> Mark:
    return Mark()


@pytest.fixture(name="alice")
def _alice() -> Iterator[int]:
    with client(ALICE) as alice:
        yield alice


def ready(order: Started) -> Started:
    """Once it runs and has said so."""
    assert order.word()[0] == "started"
    assert os.read(order.stdout[0], 6) == b"ready\n"
    return order


@pytest.mark.parametrize("source", [HYDRA, HOPPER], ids=["daemonised", "hopping"])
@pytest.mark.parametrize("run_as", ["caller", "isolated", "user:root"])
def test_the_end_of_the_daemon_is_the_end(
    house: House, daemon: Daemon, mark: Mark, alice: int, source: str, run_as: str
):
    """When the connection ends, servers and all that they daemonised, under whatever uid, are gone in a moment."""
    house.register("many", source, run_as=run_as, env={"MARK": mark.value})
    orders = [ready(daemon.order("many", alice)) for _ in range(2)]
    assert mark.alive()
    daemon.control.close()
    assert all(order.ended() for order in orders)
    assert mark.gone_within(2) == []


def test_a_closed_line_is_the_end_of_one(house: House, daemon: Daemon, mark: Mark, alice: int):
    """Who lets go of a server's line ends that server with all that it daemonised, and no other."""
    house.register("many", HYDRA, env={"MARK": mark.value})
    first, second = ready(daemon.order("many", alice)), ready(daemon.order("many", alice))
    assert len(mark.alive()) == 14
    first.line.close()
    assert second.ended(0.5) is False
    left = mark.gone_within(5, but=second.pid)
    assert len(left) == 6
    second.line.close()
    assert mark.gone_within(5) == []


@pytest.mark.parametrize("victim", ["launcher", "desk", "supervisor"])
def test_a_killed_part_takes_its_servers_along(mark: Mark, alice: int, victim: str):
    """SIGKILL of the launcher, of a connection's process or of a supervisor leaves nothing of its servers; others can be
    started afterwards."""
    with house() as own:
        own.register("many", HYDRA, env={"MARK": mark.value})
        daemon = Daemon(own)
        order = ready(daemon.order("many", alice))
        assert own.process is not None
        supervisor = parent(order.pid)
        desk = parent(supervisor)
        assert parent(desk) == own.process.pid
        os.kill({"launcher": own.process.pid, "desk": desk, "supervisor": supervisor}[victim], signal.SIGKILL)
        assert order.ended()
        assert mark.gone_within(5) == []
        daemon.close()
        if victim == "launcher":
            own.end()
            own.start()
        again = Daemon(own)
        assert again.order("many", alice).word()[0] == "started"
        again.close()
        assert mark.gone_within(5) == []


def test_a_server_stopped_by_its_own_daemon_is_given_grace(house: House, daemon: Daemon, mark: Mark, alice: int):
    """``stop`` ends it with its daemons; the daemon is told how."""
    house.register("many", HYDRA, env={"MARK": mark.value})
    order = ready(daemon.order("many", alice))
    order.line.send(b"stop")
    assert order.word()[0] == "exit"
    assert order.ended(20)
    assert mark.alive() == []


def test_the_supervisors_are_not_the_servers_kin(house: House, daemon: Daemon, alice: int):
    """Supervisors run as the launcher's account: what they supervise has another uid and cannot reach them."""
    house.register("many", HYDRA)
    order = ready(daemon.order("many", alice))
    owner = Path(f"/proc/{parent(order.pid)}/status").read_text().partition("Uid:\t")[2].split()[0]
    assert owner != str(ALICE)
