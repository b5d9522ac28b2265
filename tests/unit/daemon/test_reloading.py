"""Reloading while everything runs: what changed, what stays, and what is refused before anything changes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestd.errors import AttestdError, ConfigurationError, PolicyInvalidError
from tests.support.daemons import Inside, server_text
from tests.support.waiting import until


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp)
    yield inside
    await inside.close()


@contextmanager
def taken(path: Path) -> Iterator[None]:
    """Somebody else listens there."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield
    path.unlink()


def untouched(inside: Inside) -> bool:
    """Whether servers, policy and sessions are what they were before the first reload."""
    daemon = inside.daemon
    return (set(daemon.fronts), daemon.generation, len(daemon.sessions)) == ({"time"}, 1, 1)


def forbid(inside: Inside) -> None:
    """Write a policy that forbids everything."""
    inside.paths.policies.mkdir()
    (inside.paths.policies / "no.cedar").write_text('@id("no")\nforbid (principal, action, resource);\n')


async def test_a_reload_without_changes_changes_nothing(inside: Inside):
    """Sessions stay, the generation stays."""
    client = await inside.granted()
    assert inside.daemon.reload() == ()
    assert untouched(inside)
    del client


async def test_a_reload_closes_what_changed_and_opens_what_is_new(inside: Inside):
    """Only sessions of the changed server end, with the reason; new sockets are there, old ones are gone."""
    client = await inside.granted()
    path = inside.paths.servers
    (path / "time.toml").write_text(server_text("time", cwd="/tmp"))
    (path / "git.toml").write_text(server_text("git"))
    assert inside.daemon.reload() == ("server time: changed", "server git: open", "server time: open")
    assert await client.message() is None
    await until(lambda: inside.daemon.sessions == {})
    (path / "git.toml").unlink()
    assert inside.daemon.reload() == ("server git: removed",)
    assert not inside.paths.sockets.joinpath("git.sock").exists()


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("attestd.toml", "[limits]\nnosuch = 1\n", ConfigurationError),
        ("servers.d/time.toml", "[server]\n", ConfigurationError),
        ("policy.d/bad.cedar", "permit (", PolicyInvalidError),
    ],
)
async def test_a_bad_reload_changes_nothing(inside: Inside, file: str, text: str, error: type[AttestdError]):
    """Everything that can be refused is read before anything is changed."""
    client = await inside.granted()
    path = inside.paths.config / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (inside.paths.servers / "git.toml").write_text(server_text("git"))
    with pytest.raises(error):
        inside.daemon.reload()
    assert untouched(inside)
    del client


async def test_a_reload_takes_limits_and_policy_at_once(inside: Inside):
    """New limits hold for new connections, a new policy for the next call of an open session; it appraises anew."""
    client = await inside.granted()
    appraiser = inside.daemon.appraiser
    assert inside.daemon.reload() == ()
    assert inside.daemon.appraiser is appraiser
    inside.paths.config_file.write_text("[limits]\nconnections_per_uid = 1\nattest_seconds = 3.5\n")
    forbid(inside)
    assert inside.daemon.reload() == ("settings: changed", "policy: changed")
    assert inside.daemon.appraiser is not appraiser
    assert inside.daemon.appraiser.table is inside.daemon.policy.table
    assert inside.daemon.settings.limits.attest_seconds == 3.5
    answer = await inside.ask(client, "tools/call", {"name": "x"}, 9)
    assert answer["error"]["data"]["cause"] == "policy_forbid"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(inside.paths.sockets / "time.sock"))
        sock.setblocking(False)
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 10_000), 5)
        assert b"limit_connections" in data


async def test_a_socket_that_is_taken_stops_the_reload_before_it_changes_anything(inside: Inside):
    """Not the settings, not a server, not the port, not the policy; and nothing new listens."""
    client = await inside.granted()
    sockets, servers = inside.paths.sockets, inside.paths.servers
    forbid(inside)
    for name in ("early", "late"):
        (servers / f"{name}.toml").write_text(server_text(name))
    with taken(sockets / "late.sock"), pytest.raises(ConfigurationError, match="another process listens there"):
        inside.daemon.reload()
    assert untouched(inside)
    assert not (sockets / "early.sock").exists()
    with taken(sockets / "early.sock"):
        pass  # nobody is there
    assert inside.daemon.reload() == ("server early: open", "server late: open", "policy: changed")
    del client


async def test_who_takes_the_place_of_a_changed_server_keeps_no_policy_back(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
):
    """The server is not served, which is told; everything else counts. The next reload opens it."""
    await inside.granted()
    (inside.paths.servers / "git.toml").write_text(server_text("git"))
    inside.daemon.reload()
    forbid(inside)
    (inside.paths.servers / "time.toml").write_text(server_text("time", cwd="/tmp"))
    path, close_front = inside.paths.sockets / "time.sock", inside.daemon.close_front
    with socket.socket(socket.AF_UNIX) as squatter:

        def closed(*args: object) -> object:
            front = close_front(*args)  # type: ignore[arg-type]
            squatter.bind(str(path))
            squatter.listen()
            return front

        monkeypatch.setattr(inside.daemon, "close_front", closed)
        changes = inside.daemon.reload()
        monkeypatch.undo()
    said = f"server time: not served: cannot listen on {path}: another process listens there"
    assert changes == ("server time: changed", said, "policy: changed")
    assert set(inside.daemon.fronts) == {"git"}
    assert inside.daemon.generation == 2
    assert "another process listens there" in inside.daemon.troubles.seen(None)[-1][1]
    assert inside.daemon.reload() == ("server time: open",)
