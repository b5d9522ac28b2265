"""The client against daemons that are honest, slow, silent, foreign, or talk too much."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestd.control import messages as m
from attestd.control import replies as r
from attestd.control.client import ControlClient
from attestd.control.daemon_proof import Us
from attestd.control.lines import RemoteError
from attestd.errors import ExitCode, UnreachableError, UsageError
from tests.support.control_instance import Installation

HELLO = b'{"type":"hello","protocol":"1.0","version":"0.1.0","nonce":"n"}\n'
Talk = Callable[[socket.socket], None]


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Scripts and a runtime directory."""
    return Installation(tmp_path)


@pytest.fixture
def talk_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Talk], ControlClient]]:
    """A daemon in a thread that says what the test wants; the proof of its program is not the matter."""
    monkeypatch.setattr("attestd.control.client.prove_listener", lambda *_: os.getpid())
    path = tmp_path / "c.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    threads: list[threading.Thread] = []

    def begin(talk: Talk, timeout_s: float = 10.0) -> ControlClient:
        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                try:
                    talk(sock)
                except (BrokenPipeError, ConnectionResetError):
                    return

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return ControlClient(socket=path, timeout_s=timeout_s)

    yield begin
    for thread in threads:
        thread.join(10)
    listener.close()


def client_of(installation: Installation, **changes: float) -> ControlClient:
    """A client that finds and proves the daemon of this installation."""
    us = Us(uid=os.geteuid(), interpreter=Path(sys.executable), scripts=(installation.bin,))
    return ControlClient(environ=installation.environment(), us=us, **changes)


def test_who_lacks_an_agent_comes_again_with_one(installation: Installation) -> None:
    """The daemon says that nobody can ask for the password; once somebody can, it is asked once more, and only once."""
    brought: list[bool] = []

    @contextmanager
    def agent(there: bool) -> Iterator[bool]:
        brought.append(there)
        yield there

    with installation.daemon(how="", asks=True):
        client = dataclasses.replace(client_of(installation), agent=lambda: agent(True))
        with pytest.raises(RemoteError) as again:
            client.one(m.Reload())
        with pytest.raises(RemoteError):
            dataclasses.replace(client, agent=lambda: agent(False)).one(m.Reload())
        with pytest.raises(RemoteError):
            dataclasses.replace(client, agent=None).one(m.Reload())
    assert again.value.code == "agent_needed"
    assert brought == [True, False]


def test_everybodys_things_are_asked_for_where_that_means_something(installation: Installation) -> None:
    """``all_users`` is put into requests about somebody's things, and into no other."""
    with installation.daemon():
        client = dataclasses.replace(client_of(installation), all_users=True)
        assert client.one(m.GetStatus()).mode == "user"
        assert client.one(m.VerifyAudit()).ok


def test_one_reply_is_a_value(installation: Installation) -> None:
    """A question with one answer gives that answer, typed."""
    with installation.daemon():
        status = client_of(installation).one(m.GetStatus())
    assert isinstance(status, r.Status)
    assert status.policy == r.PolicyState(generation=3, mode="enforce")


def test_a_refusal_keeps_code_message_hint_and_exit_code(installation: Installation) -> None:
    """What the daemon refuses is the same error on this side."""
    with installation.daemon(), pytest.raises(RemoteError) as caught:
        client_of(installation).one(m.ShowGrant(grant="g-99"))
    assert (caught.value.code, caught.value.exit_code) == ("nothing_to_do", ExitCode.NOTHING_TO_DO)
    assert "g-99" in caught.value.message
    assert caught.value.hint


def test_progress_is_told_beside_the_answer(installation: Installation) -> None:
    """Progress lines go to the callback and not into the answer."""
    seen: list[r.Progress] = []
    with installation.daemon():
        answers = list(client_of(installation).stream(m.VerifyAudit(), progress=seen.append))
    assert [answer.value.ok for answer in answers] == [True]
    assert [step.what for step in seen] == ["records"]


def test_a_large_answer_of_many_objects_arrives_whole(installation: Installation) -> None:
    """Twenty thousand records come in order and in bounded memory."""
    with installation.daemon(records=20_000):
        sequence = [answer.value.seq for answer in client_of(installation).stream(m.QueryAudit(kind="decision"))]
    assert sequence == [0, *range(2, 20_000)]


def test_the_json_is_passed_on_as_it_came(talk_to: Callable[[Talk], ControlClient]) -> None:
    """Keys that this version does not know reach scripts all the same."""

    def talk(sock: socket.socket) -> None:
        sock.sendall(HELLO)
        sock.recv(65536)
        sock.sendall(b'{"type":"item","data":{"generation":1,"new":[1]}}\n{"type":"done","more":2}\n')

    answers = list(talk_to(talk).stream(m.Reload()))
    assert json.loads(bytes(answers[0].json)) == {"generation": 1, "new": [1]}


def test_the_request_carries_nonce_and_version(talk_to: Callable[[Talk], ControlClient]) -> None:
    """The daemon gets exactly one line with its own nonce."""
    got: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        sock.sendall(HELLO)
        got.append(sock.recv(65536))
        sock.sendall(b'{"type":"done"}\n')

    assert talk_to(talk).all(m.GetStatus()) == []
    assert json.loads(got[0]) == {"protocol": "1.0", "nonce": "n", "request": {"type": "status"}}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", "was closed in the middle"),
        (HELLO, "was closed in the middle"),
        (HELLO[:20], "was closed in the middle"),
        (b"garbage\n", "cannot understand"),
        (b"\xff\n", "cannot understand"),
        (b"[" * 100_000 + b"\n", "cannot understand"),
        (b'{"type":"item","data":1}\n', "out of turn"),
        (HELLO + HELLO, "out of turn"),
        (HELLO + b'{"type":"done"}\n', "got 0 objects"),
        (HELLO + b'{"type":"item","data":{"mode":3}}\n', "cannot understand"),
        (HELLO + b'{"type":"later"}\n', "cannot understand"),
    ],
)
def test_an_answer_that_makes_no_sense_is_unreachable(
    talk_to: Callable[[Talk], ControlClient], said: bytes, expected: str
) -> None:
    """Whatever a broken daemon says is a clear error with exit code 5, never another exception."""

    def talk(sock: socket.socket) -> None:
        sock.sendall(said)
        if said.startswith(HELLO):
            sock.recv(65536)

    with pytest.raises(UnreachableError, match=expected) as caught:
        talk_to(talk).one(m.GetStatus())
    assert caught.value.exit_code is ExitCode.UNREACHABLE


def test_another_major_version_is_named(talk_to: Callable[[Talk], ControlClient]) -> None:
    """A daemon of another protocol version is refused before anything is asked."""
    got: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        sock.sendall(HELLO.replace(b'"1.0"', b'"2.0"'))
        got.append(sock.recv(65536))

    with pytest.raises(UsageError, match=r"got control protocol '2\.0', expected '1\.0'"):
        talk_to(talk).one(m.GetStatus())
    assert got in ([], [b""])


def test_a_silent_daemon_is_given_up(talk_to: Callable[..., ControlClient]) -> None:
    """A half-open daemon that never says hello costs the timeout and no more."""
    done = threading.Event()
    client = talk_to(lambda sock: (sock, done.wait(10)), timeout_s=0.2)
    with pytest.raises(UnreachableError, match=r"said nothing for 0\.2 s"):
        client.one(m.GetStatus())
    done.set()


def test_a_dripping_line_does_not_extend_the_wait(talk_to: Callable[..., ControlClient]) -> None:
    """The time counts for a whole line: one byte now and then does not keep the client."""
    stop = threading.Event()

    def talk(sock: socket.socket) -> None:
        while not stop.wait(0.05):
            sock.sendall(b"x")

    client = talk_to(talk, timeout_s=0.3)
    with pytest.raises(UnreachableError, match="said nothing"):
        client.one(m.GetStatus())
    stop.set()


def test_an_endless_line_is_cut(talk_to: Callable[[Talk], ControlClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply without end is refused at the limit, in bounded memory."""
    monkeypatch.setattr("attestd.control.client.REPLY_BYTES", 100_000)

    def talk(sock: socket.socket) -> None:
        sock.sendall(b"x" * 1_000_000)

    with pytest.raises(UnreachableError, match="longer than 100000 bytes"):
        talk_to(talk).one(m.GetStatus())


def test_words_that_are_not_text_are_a_usage_error(talk_to: Callable[[Talk], ControlClient]) -> None:
    """An argument of invalid UTF-8 cannot be sent, and that is said."""

    def talk(sock: socket.socket) -> None:
        sock.sendall(HELLO)
        sock.recv(65536)

    with pytest.raises(UsageError, match="UTF-8"):
        talk_to(talk).one(m.ShowServer(name="\udcff"))


def test_a_socket_that_nobody_serves_is_unreachable(installation: Installation) -> None:
    """A stale socket is named, with how to start attestd."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(installation.socket))
    with pytest.raises(UnreachableError) as caught:
        client_of(installation).one(m.GetStatus())
    assert str(installation.socket) in caught.value.message
    assert "attestd run" in caught.value.hint


def test_nothing_is_sent_to_an_impostor(installation: Installation) -> None:
    """A program of ours that is not attestd gets a connection and not one byte."""
    got: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(installation.socket))
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                got.append(sock.recv(65536))

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UnreachableError, match="not the attestd of this installation"):
            client_of(installation).one(m.GetStatus())
        thread.join(10)
    assert got == [b""]


def test_two_clients_do_not_share_anything(installation: Installation) -> None:
    """Each question has a connection of its own, so a stream that is read slowly does not hold the next question."""
    with installation.daemon(records=10_000):
        client = client_of(installation)
        stream = client.stream(m.QueryAudit())
        next(stream)
        assert client.one(m.GetStatus()).mode == "user"
        stream.close()  # type: ignore[attr-defined]
