"""I21: over TCP, the client closes before it is looked up, shares its socket, or executes a granted program."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.http_client import ADOPTED, LAUNDER, Booth, Caller, asleep, booth, calling, program, started
from tests.support.instance import cause
from tests.support.recorder import recording
from tests.support.wire_attacks import until

pytestmark = [pytest.mark.attack("I21"), pytest.mark.linux("TCP peers")]


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
        answer = caller.response()
        if modern:
            assert answer.status == 307
        else:
            assert cause(answer.json) == "unproven"
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
    with asleep(http.instance), started(http.instance, words, http.at("tcp")) as caller:
        assert caller.process.stdout is not None
        assert caller.process.stdout.readline() == b"closed\n"
    until(lambda: http.recorded("peer_gone") > before, "the refusal")
    assert http.recorded("peer_gone") == before + 1
    assert "gone" not in http.marks()


@pytest.fixture(scope="module", name="recorded")
def _recorded() -> Iterator[Booth]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with recording() as pins, booth(root, recorder=pins) as started_booth:
        yield started_booth
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.root
def test_with_the_recorder_a_connect_is_proof(recorded: Booth):
    """The very first bytes of a connection are served where the image that connected still runs: nothing is older."""
    with calling(recorded.instance, recorded.at("tcp")) as caller:
        caller.send(recorded.request("atonce", recorded.at("tcp"), modern=True))
        assert "content" in caller.response().json["result"]
        (session,) = recorded.instance.ctl("ps")
    assert "tcp-exec-unknown" not in json.dumps(session["caller"]["reasons"])
    assert "tcp-writer" in json.dumps(session["caller"]["reasons"])
    assert "atonce" in recorded.marks()


@pytest.mark.root
def test_with_the_recorder_another_image_since_the_connect_is_known(recorded: Booth):
    """Level 0, although the program that runs now is granted."""
    with laundered(recorded, "exec", "tcp", recorded.request("known", recorded.at("tcp"))) as caller:
        answer = caller.response().json
        assert cause(answer) in {"level_too_low", "unattestable"}
        assert answer["error"]["data"]["caller"]["level"] == 0
    assert "known" not in recorded.marks()
