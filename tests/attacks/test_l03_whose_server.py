"""L3: the daemon lies about whom a server is for."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.system_launcher import (
    ALICE,
    BOB,
    DAEMON_UID,
    FIRST_ISOLATED,
    LAUNCHER_UID,
    PYTHON,
    Daemon,
    House,
    client,
    house,
)

pytestmark = [pytest.mark.attack("L3"), pytest.mark.root, pytest.mark.linux("the launcher of system mode")]

HALF = f"import os, time; os.setresuid({ALICE}, {ALICE}, 0); print('ready', flush=True); time.sleep(1000)"


def test_a_server_runs_as_the_process_that_is_shown(house: House, daemon: Daemon):
    """Uid, gid and groups are the kernel's word on the client; there is no word of the daemon about them."""
    house.register("tell")
    for uid, groups in ((ALICE, [ALICE, 60200]), (BOB, [])):
        with client(uid, groups=groups) as shown:
            order = daemon.order("tell", shown)
            assert order.word()[0] == "started"
            found = order.told()
        assert (found["uids"], found["gids"], found["groups"]) == ([uid] * 4, [uid] * 4, groups)


def test_a_client_that_is_gone(house: House, daemon: Daemon):
    """A dead client, reaped or not, has no servers started for it any more."""
    house.register("tell")
    with subprocess.Popen(["setpriv", f"--reuid={ALICE}", "--clear-groups", "true"]) as process:
        shown = os.pidfd_open(process.pid)
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.005)
        unreaped = daemon.order("tell", shown).word()
        process.wait()
        reaped = daemon.order("tell", shown).word()
    os.close(shown)
    assert (unreaped[0], reaped[0]) == ("refused", "refused")
    assert "has gone" in unreaped[1]
    assert "has gone" in reaped[1]


def test_root_is_nobodys_caller(house: House, daemon: Daemon):
    """A process of root is refused for run_as = caller; the file must say user:root, and then the server has no capability."""
    house.register("tell")
    house.register("roots", run_as="user:root")
    with client(0) as shown:
        words = daemon.order("tell", shown).word()
        order = daemon.order("roots", shown)
        started = order.word()[0]
    assert words[:2] == ["refused", "its client is root, whom no server runs as"]
    assert started == "started"
    found = order.told()
    assert (found["uids"], found["capabilities"]) == ([0] * 4, ["0" * 16])


@pytest.mark.parametrize("uid", [DAEMON_UID, LAUNCHER_UID])
def test_attestd_is_nobodys_caller(house: House, daemon: Daemon, uid: int):
    """A daemon that shows itself, or the launcher, gets no process of theirs outside of its own sandbox."""
    house.register("tell")
    house.register("alone", run_as="isolated")
    with client(uid) as shown:
        for name in ("tell", "alone"):
            assert daemon.order(name, shown).word()[:2] == ["refused", "its client is attestd itself"]


def test_somebody_in_the_middle_of_being_another(house: House, daemon: Daemon):
    """A process with several uids, such as a setuid program at work, is no caller."""
    house.register("tell")
    with subprocess.Popen([PYTHON, "-I", "-c", HALF], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        shown = os.pidfd_open(process.pid)
        words = daemon.order("tell", shown).word()
        os.close(shown)
        process.kill()
    assert words[0] == "refused"
    assert "several uids" in words[1]


def test_what_is_no_process(house: House, daemon: Daemon):
    """A file, a pipe or an event counter in the client's place starts nothing."""
    house.register("tell")
    fds = [os.open("/proc/self/status", os.O_RDONLY), os.eventfd(0), os.memfd_create("anon_inode:[pidfd]")]
    for fd in fds:
        assert daemon.order("tell", fd).word()[:2] == [
            "refused",
            "the daemon sent no process where its client should be",
        ]
        os.close(fd)


def test_no_client_and_one_too_many(house: House, daemon: Daemon):
    """Only a shared server is started for nobody, and only one that is not shared for somebody."""
    house.register("tell")
    house.register("common", shared=True, run_as="isolated")
    house.register("mixed", shared=True)
    with client(ALICE) as alice:
        assert daemon.order("tell").word()[0] == "refused"
        assert daemon.order("common", alice).word()[0] == "refused"
        assert daemon.order("mixed").word()[0] == "refused"
        assert daemon.order("common").word()[0] == "started"


def isolated_uids(house: House) -> list[int]:
    """The uids that servers one and two get for Alice, Bob and another process of Alice's."""
    daemon = Daemon(house)
    with client(ALICE, groups=[ALICE]) as alice, client(BOB) as bob, client(ALICE) as again:
        orders = [daemon.order(name, who) for name in ("one", "two") for who in (alice, bob, again)]
        assert [order.word()[0] for order in orders] == ["started"] * 6
        found = [order.told() for order in orders]
    daemon.close()
    assert all(each["groups"] == [] and set(each["gids"]) == set(each["uids"]) for each in found)
    return [each["uids"][0] for each in found]


def test_isolated_uids_are_shared_with_nobody():
    """Each pair of server and caller has a uid of its own, without groups, and the same after a restart of the launcher."""
    with house() as own:
        for name in ("one", "two"):
            own.register(name, run_as="isolated")
        first = isolated_uids(own)
        own.end()
        own.start()
        assert isolated_uids(own) == first
    assert (first[0], first[3]) == (first[2], first[5])
    assert len(set(first)) == 4
    assert min(first) >= FIRST_ISOLATED


def test_only_local_accounts_are_accounts(house: House, daemon: Daemon):
    """user:NAME is that account of /etc/passwd; a name that nobody has starts nothing."""
    house.register("nobody", run_as="user:no-such-account")
    house.register("known", run_as="user:nobody")
    with client(ALICE) as alice:
        words = daemon.order("nobody", alice).word()
        order = daemon.order("known", alice)
        assert order.word()[0] == "started"
        assert set(order.told()["uids"]) == {65534}
    assert words[:2] == ["refused", "there is no account 'no-such-account' in /etc/passwd"]
