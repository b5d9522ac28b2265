from __future__ import annotations

import msgspec
import pytest

from attestd.evidence.model import Link, Namespaces
from attestd.kernel.linux.adoption import adopted

TERMINAL_SCOPE = "/user.slice/user-1000.slice/session-3.scope"
USER_MANAGER = "/user.slice/user-1000.slice/user@1000.service/init.scope"
SERVICE = "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service"


def link(pid: int, *, start: int, session: int, cgroup: str = "/") -> Link:
    return Link(
        pid=pid,
        start_ticks=start,
        pidfs_ino=None,
        ppid=0,
        uids=(1, 1, 1, 1),
        gids=(1, 1, 1, 1),
        comm="",
        argv=(),
        exe=None,
        origin=None,
        script=None,
        namespaces=Namespaces(user=1, pid=1, mnt=1, ours_user=True, ours_pid=True, ours_mnt=True),
        tracer_pid=0,
        tty=None,
        session=session,
        cgroup=cgroup,
    )


@pytest.mark.parametrize(
    ("child", "parent", "expected"),
    [
        (link(9, start=5, session=7), link(8, start=4, session=7), False),
        (link(9, start=5, session=9), link(8, start=4, session=7), False),
        (link(9, start=4, session=7), link(8, start=4, session=7), False),
        (link(9, start=3, session=7), link(8, start=4, session=7), True),
        (link(9, start=5, session=6), link(8, start=4, session=7), True),
        (link(9, start=5, session=6), link(1, start=0, session=1), True),
        (link(9, start=5, session=9), link(1, start=0, session=1), None),
        (link(9, start=5, session=1), link(1, start=0, session=1), None),
        (
            link(9, start=5, session=9, cgroup=TERMINAL_SCOPE),
            link(8, start=4, session=8, cgroup=USER_MANAGER),
            True,
        ),
        (link(9, start=5, session=9, cgroup=SERVICE), link(8, start=4, session=8, cgroup=USER_MANAGER), None),
        (link(9, start=5, session=9, cgroup=USER_MANAGER), link(8, start=4, session=8, cgroup=USER_MANAGER), None),
        (link(9, start=5, session=9, cgroup=TERMINAL_SCOPE), link(1, start=0, session=1, cgroup="/init.scope"), True),
    ],
)
def test_signs_of_adoption(child: Link, parent: Link, expected: bool | None):
    """A younger parent, a foreign session and a scope below systemd prove it; init and systemd leave it open."""
    assert adopted(child, parent) is expected


def test_a_dead_child_shows_neither_session_nor_control_group():
    """Only its age speaks, and a parent that reaps stays undecided."""
    gone = msgspec.structs.replace(link(9, start=5, session=-1), dead=True)
    assert adopted(gone, link(8, start=4, session=7)) is False
    assert adopted(gone, link(8, start=6, session=7)) is True
    assert adopted(gone, link(1, start=0, session=1)) is None
    assert adopted(gone, link(8, start=4, session=8, cgroup=USER_MANAGER)) is None


@pytest.mark.parametrize(
    ("uids", "session", "expected"),
    [((0, 0, 0, 0), 9, None), ((0, 0, 0, 0), 7, True), ((1, 0, 0, 0), 9, True), ((1, 1, 1, 1), 9, True)],
)
def test_login_on_a_console_is_not_adopted(uids: tuple[int, int, int, int], session: int, expected: bool | None):
    """A service that became login is registered with its session; so may anything be that is root's and leads one."""
    login = msgspec.structs.replace(link(9, start=5, session=session, cgroup=TERMINAL_SCOPE), uids=uids)
    init = link(1, start=0, session=1 if session == 9 else 7, cgroup="/init.scope")
    assert adopted(login, init) is expected
