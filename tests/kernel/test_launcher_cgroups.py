"""The launcher of system mode in a cgroup that was delegated to its account, as systemd does."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.launch.cgroups import own_cgroup
from tests.support.launching import HYDRA, Mark, parent
from tests.support.system_launcher import ALICE, LAUNCHER_UID, Daemon, House, client

pytestmark = pytest.mark.root


@pytest.fixture(name="delegated")
def _delegated() -> Iterator[Path | None]:
    """A cgroup of the launcher's account; None where we may not make one."""
    own = own_cgroup()
    made = None if own is None else Path(own) / f"attestd-test-{uuid.uuid4().hex[:8]}"
    try:
        if made is not None:
            made.mkdir()
            for path in (made, *(made / f"cgroup.{name}" for name in ("procs", "threads", "subtree_control"))):
                os.chown(path, LAUNCHER_UID, LAUNCHER_UID)
    except OSError:
        made = None
    yield made
    if made is not None:
        for path in (*made.glob("server-*"), made / "launcher", made):
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()


@pytest.fixture(name="own")
def _own(delegated: Path | None) -> Iterator[House]:
    """A launcher that is started there."""
    made = House()
    made.cgroup = delegated
    try:
        made.start()
        yield made
    finally:
        made.stop()


def servers(delegated: Path) -> list[Path]:
    """The cgroups of servers."""
    return sorted(delegated.glob("server-*"))


def none_left(delegated: Path, seconds: float = 10) -> bool:
    """Whether all of them are removed within some time."""
    deadline = time.monotonic() + seconds
    while servers(delegated) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not servers(delegated)


def test_each_server_has_a_cgroup(own: House, delegated: Path | None):
    """Every server is in one of its own, which it cannot leave, and which is gone when the server is; or there are none."""
    own.register("tell")
    daemon = Daemon(own)
    with client(ALICE) as alice:
        orders = [daemon.order("tell", alice) for _ in range(2)]
        assert [order.word()[0] for order in orders] == ["started"] * 2
        where = [order.told()["cgroup"].partition("0::")[2].strip() for order in orders]
        if delegated is None:
            assert where == [Path("/proc/self/cgroup").read_text().partition("0::")[2].strip()] * 2
        else:
            assert [Path(path).name for path in where] == [path.name for path in servers(delegated)]
            assert {path.stat().st_uid for path in servers(delegated)} == {LAUNCHER_UID}
            assert (delegated / "launcher" / "cgroup.procs").read_text().split()
            orders[0].line.send(b"stop")
            assert orders[0].ended()
            daemon.control.close()
            assert none_left(delegated)
    daemon.close()


@pytest.mark.parametrize("victim", ["supervisor", "desk"])
def test_a_killed_part_leaves_no_cgroup(own: House, delegated: Path | None, victim: str):
    """Whoever is killed by force, the cgroups of its servers are emptied and removed."""
    mark = Mark()
    own.register("many", HYDRA, env={"MARK": mark.value})
    daemon = Daemon(own)
    with client(ALICE) as alice:
        order = daemon.order("many", alice)
        assert order.word()[0] == "started"
        assert os.read(order.stdout[0], 6) == b"ready\n"
        assert delegated is None or len((servers(delegated)[0] / "cgroup.procs").read_text().split()) == 7
        supervisor = parent(order.pid)
        os.kill({"supervisor": supervisor, "desk": parent(supervisor)}[victim], signal.SIGKILL)
        assert order.ended()
        assert mark.gone_within(5) == []
        assert delegated is None or none_left(delegated)
    daemon.close()


def test_a_limit_that_needs_a_cgroup(own: House, delegated: Path | None):
    """Memory is limited where the controller was delegated; elsewhere the server is not started, and the reason is told."""
    own.register("big", limits={"memory_mib": 64})
    daemon = Daemon(own)
    with client(ALICE) as alice:
        order = daemon.order("big", alice)
        words = order.word()
        if delegated is not None and "memory" in (delegated / "cgroup.controllers").read_text():
            assert words[0] == "started"
            assert (servers(delegated)[0] / "memory.max").read_text() == f"{64 << 20}\n"
        else:
            assert words[:2] == ["refused", "limits.memory_mib needs a cgroup"]
    daemon.close()
