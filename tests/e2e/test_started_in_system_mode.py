"""A call in system mode: daemon, launcher and clients of several users, all real."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Client, cause
from tests.support.system_launcher import ALICE, BOB, FIRST_ISOLATED
from tests.support.system_mode import SystemMode, system_mode

pytestmark = [pytest.mark.root, pytest.mark.linux("the launcher of system mode")]


@pytest.fixture(scope="module", name="host")
def _host() -> Iterator[SystemMode]:
    with system_mode() as made:
        made.register("own")
        made.register("alone", run_as="isolated")
        made.register("common", run_as="isolated", shared=True)
        made.register("confined", run_as="isolated", network=False, read_only=True)
        made.register("nobodys", run_as="user:nobody")
        made.register("broken", cwd="/no/such/place")
        made.start("own", "alone", "common", "confined", "nobodys", "broken")
        with made.client(ALICE, "common") as alice:  # what stays until the daemon ends is there before the tests
            alice.initialize()
        yield made


def process(client: Client) -> int:
    """The server's process, by its own word."""
    assert "result" in (answer := client.initialize()), answer
    answer = client.call("pid")
    assert "result" in answer, answer
    return int(answer["result"]["content"][0]["text"])


def facts(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def uid(pid: int) -> int:
    """Whose it is."""
    (only,) = {int(word) for word in facts(pid)["Uid"].split()}
    return only


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process is gone within some time."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def test_each_caller_has_a_server_of_its_own_as_itself(host: SystemMode):
    """Two users' servers run as the two users, and end with their connections."""
    with host.client(ALICE, "own") as alice, host.client(BOB, "own") as bob:
        servers = process(alice), process(bob)
        assert [uid(pid) for pid in servers] == [ALICE, BOB]
        assert {facts(pid)["CapBnd"] for pid in servers} == {"0" * 16}
    assert all(gone(pid) for pid in servers)


def test_isolated_servers_are_nobodys(host: SystemMode):
    """Each caller's server has a uid that is neither the caller's nor the other's."""
    with host.client(ALICE, "alone") as alice, host.client(BOB, "alone") as bob:
        uids = {uid(process(alice)), uid(process(bob))}
    assert len(uids) == 2
    assert min(uids) >= FIRST_ISOLATED


def test_a_shared_server_is_one_for_all(host: SystemMode):
    """Two users call the same process, which runs as neither."""
    with host.client(ALICE, "common") as alice, host.client(BOB, "common") as bob:
        servers = {process(alice), process(bob)}
        assert len(servers) == 1
        assert uid(servers.pop()) >= FIRST_ISOLATED


def test_a_confined_server_answers(host: SystemMode):
    """Without network and with read-only files a server is attested and called like any other."""
    with host.client(ALICE, "confined") as alice:
        server = process(alice)
        assert Path(f"/proc/{server}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def test_a_fixed_account(host: SystemMode):
    """user:nobody is nobody, whoever calls."""
    with host.client(ALICE, "nobodys") as alice:
        assert uid(process(alice)) == 65534


def test_what_the_launcher_refuses_is_told_to_the_client(host: SystemMode):
    """A root client of a caller's server, and a server that cannot be started, get the launcher's reason."""

    def refusal(name: str, who: int) -> dict[str, Any]:
        with host.client(who, name) as client:
            return client.initialize()

    root = refusal("own", 0)
    assert cause(root) == "server_unavailable", root
    assert "its client is root, whom no server runs as" in str(root)
    broken = refusal("broken", ALICE)
    assert "cannot enter /no/such/place" in str(broken)


def test_a_killed_daemon_takes_the_servers_along():
    """SIGKILL of the daemon ends every server in a moment; the launcher serves the next daemon."""
    with system_mode() as own:
        own.register("own")
        own.start("own")
        with own.client(ALICE, "own") as alice:
            server = process(alice)
            assert own.process is not None
            own.process.send_signal(signal.SIGKILL)
            own.process.wait()
            assert gone(server)
        own.socket("own").unlink()
        own.start("own")
        with own.client(ALICE, "own") as alice:
            assert uid(process(alice)) == ALICE
