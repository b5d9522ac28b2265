"""Sealing, unsealing, starting over and stopping, in a daemon whose kernel seals in memory."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attestd.audit.query import Filters, query
from attestd.control import messages as m
from attestd.control import replies as r
from attestd.daemon.answers import Answers
from attestd.daemon.doctor import checks
from attestd.daemon.seal_file import Seal, load_seals, store_seals
from attestd.daemon.seals import Seals
from attestd.errors import ConfigurationError, NothingToDoError
from attestd.evidence.sealing import Guard, SealError
from tests.fakes.sealer import FakeSealer, Rules
from tests.support.daemons import Inside, control_caller, server_text

ROOT = control_caller()
HTTP = {"transport": "http", "command": None}
NOTES = server_text("notes", url="http://127.0.0.1:8765/mcp", **HTTP)
SERVERS = (
    NOTES,
    server_text("old", url="http://localhost:8766/sse", command=None, transport="sse"),
    server_text("tls", url="https://127.0.0.1:8767/mcp", **HTTP),
    server_text("far", url="https://example.org/mcp", **HTTP),
    server_text("socket", url="http://localhost/mcp", socket="/run/x.sock", **HTTP),
    server_text("one", url="http://[::1]:8768/a", **HTTP),
    server_text("two", url="http://[::1]:8768/b", **HTTP),
    server_text("time"),
)


class Place:
    """Directories and a kernel in which one daemon follows another."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rules = Rules()
        self.inside: Inside | None = None

    def start(self, settings: str = "") -> Inside:
        """The first daemon."""
        self.inside = Inside(self.root, *SERVERS, settings=settings, sealer=FakeSealer(self.rules))
        return self.inside

    async def again(self, settings: str = "") -> Inside:
        """The next one, after the first has ended in whichever way."""
        inside = self.inside
        assert inside is not None
        inside.paths.config_file.write_text(settings, encoding="utf-8")
        inside.sealer = FakeSealer(self.rules)
        inside.daemon = inside.start()
        return inside

    @property
    def guards(self) -> tuple[Guard, ...]:
        """What the kernel has."""
        return self.rules.tables.get("attestd-seal-fake", ())


@pytest.fixture(name="place")
async def _place(short_tmp: Path) -> Any:
    place = Place(short_tmp)
    yield place
    if place.inside is not None:
        place.rules.refusal = ""
        await place.inside.close()


async def seal(inside: Inside, name: str = "notes", *, refuse: bool = False) -> r.Server:
    """As a person does."""
    return await Answers(inside.daemon).servers_seal(ROOT, m.SealServer(name=name, refuse=refuse))


async def unseal(inside: Inside, name: str = "notes") -> r.Server:
    """As a person does."""
    return await Answers(inside.daemon).servers_unseal(ROOT, m.UnsealServer(name=name))


def acts(inside: Inside, word: str) -> list[Any]:
    """Records whose method begins with the word."""
    return [row.record for row in query(inside.paths.audit, Filters()) if row.record.method.startswith(word)]


async def test_sealing_and_unsealing(place: Place):
    """The kernel has it with our listeners, the file names it, it is recorded; and then nothing is left of it."""
    inside = place.start()
    assert place.guards == ()
    sealed = await seal(inside)
    assert sealed.sealed == "redirected"
    (guard,) = place.guards
    assert (guard.server, guard.port) == ("notes", 8765)
    assert load_seals(inside.paths.seals) == (Seal(server="notes", port=8765, how="redirect"),)
    (record,) = acts(inside, "server.seal")
    assert (record.server, record.detail["port"]) == ("notes", 8765)
    with socket.create_connection(("127.0.0.1", guard.ip), 5):
        pass
    opened = await unseal(inside)
    assert opened.sealed == ""
    assert "attestd-seal-fake" not in place.rules.tables
    assert load_seals(inside.paths.seals) == ()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", guard.ip), 5)
    assert acts(inside, "server.unseal")


async def test_refusing_needs_no_listener(place: Place):
    """Not for TLS either, which cannot be answered in the server's place."""
    inside = place.start()
    assert (await seal(inside, refuse=True)).sealed == "refused"
    assert (await seal(inside, "tls", refuse=True)).sealed == "refused"
    assert place.guards == (Guard(server="notes", port=8765), Guard(server="tls", port=8767))
    await unseal(inside)
    assert place.guards == (Guard(server="tls", port=8767),)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("tls", ConfigurationError, "it speaks TLS"),
        ("far", ConfigurationError, "is not this machine"),
        ("socket", ConfigurationError, "got a socket"),
        ("time", ConfigurationError, "got transport stdio"),
        ("one", ConfigurationError, "'two' has the same port 8768"),
        ("none", NothingToDoError, "cannot find the server"),
    ],
)
async def test_what_cannot_be_sealed(place: Place, name: str, error: type[Exception], text: str):
    """It is said before anything is recorded or changed."""
    inside = place.start()
    with pytest.raises(error, match=text):
        await seal(inside, name)
    assert place.rules.exchanges == 0
    assert not inside.paths.seals.exists()
    assert acts(inside, "server.seal") == []


async def test_sealing_twice_and_unsealing_what_is_open(place: Place):
    """Neither changes anything."""
    inside = place.start()
    await seal(inside)
    before = place.rules.exchanges
    with pytest.raises(NothingToDoError, match="it is sealed"):
        await seal(inside)
    with pytest.raises(NothingToDoError, match="it is not sealed"):
        await unseal(inside, "old")
    assert place.rules.exchanges == before


async def test_without_the_right_nothing_is_sealed(place: Place):
    """The error says what to do, and nothing is named as sealed afterwards."""
    inside = place.start()
    place.rules.refusal = "cannot look at seals: no right"
    with pytest.raises(SealError, match="no right") as error:
        await seal(inside)
    assert error.value.hint
    assert inside.daemon.seals.seals == ()
    assert acts(inside, "server.seal") == []


@pytest.mark.parametrize("act", ["seal", "unseal"])
async def test_an_exchange_that_fails_changes_nothing(place: Place, act: str, monkeypatch: pytest.MonkeyPatch):
    """The kernel, the file and what is told stay as they were."""
    inside = place.start()
    await seal(inside, "old")
    if act == "unseal":
        await seal(inside)
    before, kept = place.guards, load_seals(inside.paths.seals)

    def full(_: object) -> None:
        raise SealError("cannot install seals: no memory")

    monkeypatch.setattr(inside.sealer, "replace", full)
    with pytest.raises(SealError, match="no memory"):
        await (seal(inside) if act == "seal" else unseal(inside))
    monkeypatch.undo()
    assert place.guards == before
    assert load_seals(inside.paths.seals) == kept
    assert acts(inside, f"server.{act}")[-1].verdict == "error"
    assert tuple(each.server for each in inside.daemon.seals.seals) == tuple(each.server for each in kept)


async def test_a_crash_leaves_it_sealed_and_the_next_start_takes_it_over(place: Place):
    """The rules are replaced, not removed, and the clients are served again."""
    inside = place.start()
    await seal(inside)
    (left,) = place.guards
    inside.daemon.abandon()  # what a crash leaves is more than this
    assert place.guards == (left,)
    inside = await place.again()
    (guard,) = place.guards
    assert (guard.server, guard.port) == ("notes", 8765)
    assert guard.ip != 0
    assert inside.daemon.seals.state(inside.daemon.seals.seals[0]) == "redirected"
    (start,) = acts(inside, "seals.start")
    assert start.detail["found"] == 1


async def test_what_the_kernel_has_and_the_file_does_not(place: Place):
    """Somebody removed the file: the server stays sealed, is listed, and is opened by unsealing only."""
    inside = place.start()
    await seal(inside)
    inside.daemon.abandon()
    inside.paths.seals.unlink()
    inside = await place.again()
    assert place.guards == (Guard(server="notes", port=8765),)
    (state,) = (await Answers(inside.daemon).status(ROOT, m.GetStatus())).seals
    assert (state.server, state.port, state.state) == ("notes", 8765, "refused")
    await unseal(inside)
    assert place.guards == ()


async def test_an_orderly_stop(place: Place):
    """``open`` undoes the seals and keeps them for the next start; ``stay`` leaves them."""
    inside = place.start('[seal]\non_stop = "open"\n')
    await seal(inside)
    await inside.close()
    assert place.guards == ()
    inside = await place.again('[seal]\non_stop = "stay"\n')
    assert len(place.guards) == 1
    await inside.close()
    assert len(place.guards) == 1
    assert [each.method for each in acts(inside, "seals.")] == ["seals.open", "seals.start", "seals.stay"]
    await place.again()


@pytest.mark.parametrize(("uid", "stays"), [(0, False), (1000, True)])
async def test_who_may_stop_the_daemon_decides(place: Place, uid: int, stays: bool, monkeypatch: pytest.MonkeyPatch):
    """By default a daemon that any program of its user can stop leaves the seals."""
    inside = place.start()
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert inside.daemon.seals.stays is stays
    monkeypatch.undo()


async def test_what_cannot_be_sealed_again_is_trouble(place: Place):
    """The daemon serves all the same, says so everywhere, and seals as soon as it can."""
    inside = place.start()
    await seal(inside)
    await inside.close()
    place.rules.tables.clear()
    place.rules.refusal = "cannot install seals: no right"
    inside = await place.again()
    (state,) = (await Answers(inside.daemon).status(ROOT, m.GetStatus())).seals
    assert state.state.startswith("open: cannot seal again: cannot install seals: no right")
    (check,) = [each for each in checks(inside.daemon, inside.kernel.examine()) if each.name == "seal notes"]
    assert (check.status, "attestd unseal --all" in check.remedy) == ("fail", True)
    before = len(inside.daemon.troubles.seen(None))
    inside.daemon.seals.look()
    inside.daemon.seals.look()
    assert len(inside.daemon.troubles.seen(None)) <= before + 1
    place.rules.refusal = ""
    inside.daemon.seals.look()
    assert len(place.guards) == 1
    assert inside.daemon.seals.trouble == ""


async def test_what_was_flushed_is_put_back(place: Place):
    """And recorded; what is in order is left alone."""
    inside = place.start()
    inside.daemon.seals.look()
    await seal(inside)
    inside.daemon.seals.look()
    assert acts(inside, "seals.restore") == []
    before = place.guards
    for number, less in enumerate(({}, {"attestd-seal-fake": ()}), 1):
        place.rules.tables = dict(less)
        inside.daemon.seals.look()
        assert place.guards == before
        assert len(acts(inside, "seals.restore")) == number


async def test_a_reload_opens_nothing(place: Place):
    """Neither a server that is gone nor one that moved: its old port stays closed, and that is told."""
    inside = place.start()
    await seal(inside)
    file = inside.paths.servers / "notes.toml"
    file.write_text(NOTES.replace("8765", "9999"), encoding="utf-8")
    inside.daemon.reload()
    state: Callable[[], str] = lambda: inside.daemon.seals.state(inside.daemon.seals.seals[0])  # noqa: E731 - short
    assert "names port 9999 now" in state()
    file.unlink()
    inside.daemon.reload()
    assert state() == "refused: it is not registered any more"
    assert [each.port for each in place.guards] == [8765]
    assert (await unseal(inside)).state == "not registered"
    assert place.guards == ()


async def test_a_sealed_server_is_not_removed(place: Place):
    """It has to be opened first."""
    inside = place.start()
    await seal(inside)
    with pytest.raises(ConfigurationError, match="it is sealed"):
        await Answers(inside.daemon).servers_remove(ROOT, m.RemoveServer(name="notes"))
    assert "notes" in inside.daemon.fronts


@pytest.fixture(name="sock")
def _sock() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


async def test_every_connection_of_ours_is_marked_where_it_can_be(place: Place, sock: socket.socket):
    """Before anything is sealed too, so that sealing cuts none of them."""
    inside = place.start()
    inside.daemon.seals.let_through(sock)
    assert isinstance(inside.sealer, FakeSealer)
    assert inside.sealer.marked == [sock.fileno()]


async def test_without_the_right_no_connection_is_marked(place: Place, sock: socket.socket):
    """Everything works as if sealing did not exist."""
    place.rules.refusal = "no right"
    inside = place.start()
    inside.daemon.seals.let_through(sock)
    assert isinstance(inside.sealer, FakeSealer)
    assert inside.sealer.marked == []
    assert list(inside.daemon.troubles.seen(None)) == []


async def test_without_a_sealer(short_tmp: Path, sock: socket.socket):
    """On a system that cannot seal, what was sealed is trouble, and nothing else changes."""
    (short_tmp / "s").mkdir(mode=0o700)
    store_seals(short_tmp / "s" / "seals.json", (Seal(server="notes", port=8765, how="refuse"),))
    inside = Inside(short_tmp, *SERVERS)
    try:
        found: Seals = inside.daemon.seals
        found.let_through(sock)
        assert found.state(found.seals[0]).startswith("open: cannot seal again")
        with pytest.raises(SealError, match="on this system"):
            await seal(inside, "old")
    finally:
        await inside.close()
