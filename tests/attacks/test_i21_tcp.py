"""I21: over TCP, the client closes before it is looked up, shares its socket, or executes a granted program."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.http_client import ADOPTED, LAUNDER, Booth, Caller, asleep, calling, program, started
from tests.support.instance import cause

pytestmark = pytest.mark.attack("I21")


@contextmanager
def laundered(http: Booth, how: str, place: str, text: bytes) -> Iterator[Caller]:
    """The granted program, executed by one that connected and wrote before; the daemon saw nothing of it."""
    file = http.instance.root / f"text{time.monotonic_ns()}"
    file.write_bytes(text)
    script = http.instance.script("launder.py", LAUNDER)
    where = http.at(place) if place == "unix" else str(http.port)
    words = [sys.executable, str(script), how, where, str(file), str(program(http.instance))]
    with asleep(http.instance):
        context = started(http.instance, words, http.at(place))
        caller = context.__enter__()
        if how != "close":
            until_executed(caller.process.pid, program(http.instance))
    try:
        caller.send(b"") if how == "close" else adopt(caller)
        yield caller
    finally:
        context.__exit__(None, None, None)


def adopt(caller: Caller) -> None:
    """The socket that was connected before becomes connection ``a``."""
    place, caller.place = caller.place, ADOPTED
    caller.send(b"")
    caller.place = place


def until_executed(pid: int, script: Path) -> None:
    """The process runs the granted program."""
    while not Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"-u\0" + os.fsencode(script) + b"\0"):
        time.sleep(0.01)


@pytest.mark.parametrize("place", ["tcp", "unix"])
@pytest.mark.parametrize("modern", [False, True])
def test_written_before_the_exec(http: Booth, place: str, modern: bool):
    """The same bytes are served when the granted program wrote them, and never when it did not."""
    mark, own = f"exec{place}{modern}", f"own{place}{modern}"
    with calling(http.instance, http.at(place)) as caller:
        caller.initialize()
        assert "result" in caller.call(mark=own).json
    with laundered(http, "exec", place, http.request(mark, http.at(place), modern=modern)) as caller:
        answer = caller.response().json
        if modern:
            assert answer["result"]["resultType"] == "input_required"
        else:
            assert cause(answer) == "unproven"
        assert "result" in caller.initialize().json
        assert "result" in caller.call(mark=f"{own}later").json
    assert {own, f"{own}later"} <= http.marks()
    assert mark not in http.marks()


def test_a_socket_that_two_processes_hold(http: Booth):
    """Any of them may have written: level 0, whatever the program."""
    with laundered(http, "share", "tcp", http.request("share", http.at("tcp"))) as caller:
        answer = caller.response().json
        assert cause(answer) in {"level_too_low", "unattestable"}
        assert answer["error"]["data"]["caller"]["level"] == 0
        assert cause(caller.initialize().json) in {"level_too_low", "unattestable"}
    assert "share" not in http.marks()


def test_a_client_that_is_gone(http: Booth):
    """Its socket reads as root's; nobody is root for that."""
    before = http.recorded("peer_gone")
    file = http.instance.root / "gone"
    file.write_bytes(http.request("gone", http.at("tcp")))
    words = [sys.executable, str(http.instance.script("launder.py", LAUNDER)), "close", str(http.port), str(file), "-"]
    with asleep(http.instance), started(http.instance, words, http.at("tcp")):
        time.sleep(0.5)  # it has connected, written and closed
    deadline = time.monotonic() + 10
    while http.recorded("peer_gone") == before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert http.recorded("peer_gone") == before + 1
    assert "gone" not in http.marks()
