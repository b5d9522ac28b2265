"""Bytes older than the attestation, by record."""

from __future__ import annotations

import os
import socket
from typing import Any

import msgspec
import pytest

from attestd.evidence.recorder import Connection, ProcessKey, ProcessRecord
from attestd.kernel.linux import proven
from attestd.kernel.linux.table import Observed
from tests.fakes.recorder import FakeRecorder
from tests.support.evidence import evil, shim

CLIENT = ProcessKey(50, 1_000)
PEER = ProcessKey(60, 2_000)


class Handle:
    """Stands for a process with no standard input of its own."""

    def __init__(self, dirfd: int) -> None:
        self.dirfd = dirfd


class Connected(FakeRecorder):
    """Knows one connection, whatever its cookie."""

    found: Connection | None = None

    def connection(self, cookie: int) -> Connection | None:
        """The one."""
        del cookie
        return self.found


def record(key: ProcessKey, parent: ProcessKey | None, **facts: Any) -> ProcessRecord:
    """A client that executed at 1500 and forked the peer at 2000, which executed at 2500."""
    base: dict[str, Any] = {
        "exec_counter": 5,
        "image": None,
        "uid": 1000,
        "cgroup_id": 0,
        "forked_ns": key.start_ns,
        "exec_ns": key.start_ns + 500,
        "exited_ns": None,
        "comm": "x",
    }
    return ProcessRecord(key=key, parent=parent, **(base | facts))


def judged(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    client: dict[str, Any] | None = None,
    peer: dict[str, Any] | None = None,
    connection: dict[str, Any] | None = None,
    shared_input: bool = False,
) -> proven.Proven:
    """The proof for a relay and its client, with these differences."""
    directories = [tmp_path_factory.mktemp("proc") for _ in range(2)]
    for number, directory in enumerate(directories):
        (directory / "fd").mkdir()
        if shared_input:
            (directory / "fd" / "0").symlink_to("/dev/null")
        else:
            (directory / "fd" / "0").write_text(str(number))
    fds = [os.open(directory, os.O_PATH) for directory in directories]
    recorder = Connected()
    base: dict[str, Any] = {"cookie": 1, "key": PEER, "exec_counter": 6, "family": 1, "time_ns": 3_000}
    recorder.found = Connection(**(base | (connection or {})))
    chain = [
        Observed(shim(recorded=True), Handle(fds[0]), record(PEER, CLIENT, **({"exec_counter": 6} | (peer or {})))),  # type: ignore[arg-type]
        Observed(evil(recorded=True), Handle(fds[1]), record(CLIENT, None, **(client or {}))),  # type: ignore[arg-type]
    ]
    ours, theirs = socket.socketpair()
    try:
        return proven.upto(chain, recorder, proven.unix_cookie(ours.fileno()))
    finally:
        ours.close()
        theirs.close()
        for fd in fds:
            os.close(fd)


def test_proven(tmp_path_factory: pytest.TempPathFactory):
    """A client that started its relay itself is proven."""
    assert judged(tmp_path_factory) == proven.Proven(1, "")


@pytest.mark.parametrize(
    ("differences", "index", "why"),
    [
        ({"connection": {"exec_counter": 5}}, -1, "after it connected"),
        ({"connection": {"contested": True}}, -1, "more than once"),
        ({"connection": {"key": CLIENT}}, -1, "another process"),
        ({"peer": {"counter_exact": False}}, -1, "not certain"),
        ({"client": {"exec_ns": 2_000}}, 0, "after it started"),
        ({"client": {"exec_counter": 4}}, 0, "more than one program"),
        ({"client": {"counter_exact": False}}, 0, "not certain"),
        ({"peer": {"parent": ProcessKey(9, 9)}}, 0, "did not start"),
        ({"shared_input": True}, 0, "standard input"),
    ],
)
def test_each_doubt_ends_it(tmp_path_factory: pytest.TempPathFactory, differences: Any, index: int, why: str):
    """Each single difference ends the proof at its link, with its reason."""
    peer = differences.get("peer", {})
    if "parent" in peer:
        parent = peer["parent"]
        found = _with_parent(tmp_path_factory, parent)
    else:
        found = judged(tmp_path_factory, **differences)
    assert found.index == index
    assert why in found.reason


def _with_parent(tmp_path_factory: pytest.TempPathFactory, parent: ProcessKey) -> proven.Proven:
    link = msgspec.structs.replace(shim(), recorded=True)
    directory = tmp_path_factory.mktemp("proc")
    fd = os.open(directory, os.O_PATH)
    recorder = Connected()
    recorder.found = Connection(cookie=1, key=PEER, exec_counter=6, family=1, time_ns=3_000)
    chain = [
        Observed(link, Handle(fd), record(PEER, parent, exec_counter=6)),  # type: ignore[arg-type]
        Observed(evil(recorded=True), Handle(fd), record(CLIENT, None)),  # type: ignore[arg-type]
    ]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = proven.upto(chain, recorder, proven.unix_cookie(ours.fileno()))
    os.close(fd)
    return found


def test_nothing_without_a_connection():
    """A process that was named by number has no connection to prove."""
    chain = [Observed(shim(), None, None)]
    assert proven.upto(chain, FakeRecorder(), proven.unix_cookie(None)).index == -1
