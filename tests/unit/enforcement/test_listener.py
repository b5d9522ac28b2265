"""Listening, limiting, attesting: with real sockets and a kernel of one process."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from attestd.appraisal.appraiser import Appraiser
from attestd.enforcement.listener import Admission, Listener, listen
from attestd.enforcement.workers import Workers
from attestd.enforcement.writers import queued_bytes
from attestd.errors import Cause, ConfigurationError, EvidenceError
from attestd.evidence.model import Peer
from attestd.mediation import Attested
from tests.fakes.kernel import OneProcess
from tests.support.evidence import NAMING, REFERENCES, evidence_of, python_client, shell, shipped_table, terminal
from tests.support.streams import Far
from tests.support.waiting import until

TABLE = shipped_table()


class Front:
    """A listener that keeps what it opens and refuses."""

    def __init__(self, root: Path, *, connections: int = 1024, attesting: int = 1024, seconds: float = 10.0) -> None:
        self.path = root / "time.sock"
        self.kernel = OneProcess(evidence_of(python_client(), shell(), terminal()))
        self.admission = Admission(connections=connections, attesting=attesting)
        self.workers = Workers(2, "front")
        self.opened: list[tuple[socket.socket, Peer, Attested, int]] = []
        self.refused: list[tuple[Cause, str]] = []
        self.clients: list[Far] = []
        self.listener = Listener(
            loop=asyncio.get_running_loop(),
            sock=listen(self.path),
            server="time",
            kernel=self.kernel,
            appraiser=lambda: Appraiser(table=TABLE, references=REFERENCES, naming=NAMING),
            workers=self.workers,
            attest_seconds=lambda: seconds,
            admission=self.admission,
            open_session=lambda *each: self.opened.append(each),
            refused=lambda _server, _peer, cause, text: self.refused.append((cause, text)),
        )

    def connect(self, first: bytes = b"") -> Far:
        """A client; its first bytes are queued before the listener looks."""
        sock = socket.socket(socket.AF_UNIX)
        self.clients.append(Far(sock))
        sock.setblocking(True)
        sock.connect(str(self.path))
        if first:
            sock.sendall(first)
        sock.setblocking(False)
        return self.clients[-1]

    async def close(self) -> None:
        """Release everything."""
        self.kernel.go_on.set()
        self.listener.close()
        await asyncio.sleep(0)
        for client in self.clients:
            client.close()
        for sock, _, attested, _ in self.opened:
            sock.close()
            attested.watch.close()
        await until(lambda: self.kernel.open == 0)
        self.workers.shutdown()


@pytest.fixture(name="front")
async def _front(short_tmp: Path) -> AsyncIterator[Front]:
    front = Front(short_tmp)
    yield front
    await front.close()


def said(line: Any) -> tuple[str, str]:
    """Cause and text of a refusal."""
    assert line["id"] is None
    assert line["error"]["code"] == -31403
    return line["error"]["data"]["cause"], line["error"]["message"]


async def test_a_connection_is_attested_and_opened(front: Front):
    """The session gets the peer of the kernel, the attestation and the count of the bytes that were queued."""
    front.connect(b'{"old": 1}\n')
    await until(lambda: bool(front.opened))
    sock, peer, attested, old = front.opened[0]
    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert attested.result.title
    assert old == len(b'{"old": 1}\n') == queued_bytes(sock)
    assert not sock.getblocking()
    data, ancillary, _, _ = sock.recvmsg(100, 64)
    assert data == b'{"old": 1}\n'
    assert ancillary[0][:2] == (socket.SOL_SOCKET, 2)


async def test_a_burst_of_connections_is_served(front: Front):
    """300 connections at once are all opened, none refused, and all are counted out again."""
    for _ in range(300):
        front.connect()
    await until(lambda: len(front.opened) == 300)
    assert front.refused == []


async def test_beyond_the_limit_of_a_uid_connections_are_refused(short_tmp: Path):
    """The one too many is told so in JSON-RPC before anything is collected; when one leaves, the next gets in."""
    front = Front(short_tmp, connections=3)
    for _ in range(3):
        front.connect()
    await until(lambda: len(front.opened) == 3)
    extra = front.connect()
    cause, text = said(await extra.message())
    assert cause == "limit_connections"
    assert f"uid {os.geteuid()} has too many connections" in text
    assert await extra.message() is None
    assert front.refused[0][0] is Cause.LIMIT_CONNECTIONS
    front.admission.leave(os.geteuid())
    front.connect()
    await until(lambda: len(front.opened) == 4)
    await front.close()


async def test_waiting_for_attestation_is_limited_of_its_own(short_tmp: Path):
    """Many connections that are open do not matter for it; many that still wait do."""
    front = Front(short_tmp, attesting=2)
    front.kernel.go_on.clear()
    front.connect()
    front.connect()
    extra = front.connect()
    assert said(await extra.message())[0] == "limit_connections"
    front.kernel.go_on.set()
    await until(lambda: len(front.opened) == 2)
    front.connect()
    await until(lambda: len(front.opened) == 3)
    await front.close()


@pytest.mark.parametrize("cause", [Cause.PEER_GONE, Cause.INCONSISTENT, Cause.FOREIGN_NAMESPACE])
async def test_who_cannot_be_attested_is_told_so(front: Front, cause: Cause):
    """The refusal has cause and reason in words, without placeholders; nothing stays counted or open."""
    front.kernel.failure = EvidenceError(cause, "its facts kept changing")
    client = front.connect()
    found, text = said(await client.message())
    assert found == cause.value
    assert "its facts kept changing" in text
    assert "{" not in text
    assert await client.message() is None
    assert front.refused == [(cause, "its facts kept changing")]
    assert front.kernel.open == 0
    assert front.admission.enter(os.geteuid())


async def test_a_peer_that_the_kernel_cannot_name_is_turned_away(front: Front):
    """Without credentials there is nobody to attest."""
    front.kernel.peer_failure = EvidenceError(Cause.FOREIGN_NAMESPACE, "pid 0: it is in another pid namespace")
    assert said(await front.connect().message())[0] == "foreign_namespace"


@pytest.mark.parametrize(
    ("number", "cause"),
    [(errno.EMFILE, "limit_connections"), (errno.ENOMEM, "limit_connections"), (errno.EIO, "internal")],
)
async def test_what_we_lack_ourselves_is_no_fact_about_the_peer(front: Front, number: int, cause: str):
    """Without descriptors the caller is told of a limit, not that it has exited; in both steps that ask the kernel."""
    front.kernel.failure = OSError(number, os.strerror(number))
    found, text = said(await front.connect().message())
    assert found == cause
    assert os.strerror(number) in text
    front.kernel.peer_failure = OSError(number, os.strerror(number))
    assert said(await front.connect().message())[0] == cause
    assert front.admission.enter(os.geteuid())
    assert [each for each, _ in front.refused] == [cause, cause]


async def test_a_caller_that_does_not_answer_is_refused_in_time(short_tmp: Path):
    """Collecting that hangs on a file ends in a refusal; the descriptor is released when the thread comes back."""
    front = Front(short_tmp, seconds=0.05)
    front.kernel.go_on.clear()
    client = front.connect()
    cause, text = said(await client.message())
    assert cause == "unattestable"
    assert "did not answer within 0.05 s" in text
    assert await client.message() is None
    assert front.opened == []
    front.kernel.go_on.set()
    await until(lambda: bool(front.kernel.watches) and front.kernel.open == 0)
    await front.close()


async def test_others_are_served_while_some_hang(short_tmp: Path):
    """More hung attestations than there are threads do not keep the next caller out."""
    front = Front(short_tmp, seconds=0.3)
    front.kernel.go_on.clear()
    hung = [front.connect() for _ in range(4)]
    for client in hung:
        assert said(await client.message())[0] == "unattestable"
    front.kernel.failure = EvidenceError(Cause.INCONSISTENT, "quick")
    hang = front.kernel.go_on
    front.kernel.go_on = type(hang)()
    front.kernel.go_on.set()
    assert said(await front.connect().message())[0] == "inconsistent"
    hang.set()
    await until(lambda: not front.admission._open)
    await front.close()


async def test_a_bug_in_attesting_closes_the_connection(front: Front):
    """An unexpected exception opens nothing, leaves nothing counted, and reaches the loop's handler."""
    heard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
    front.kernel.failure = ZeroDivisionError("oops")
    assert await front.connect().message() is None
    assert front.opened == []
    import gc

    await asyncio.sleep(0)
    gc.collect()
    assert isinstance(heard[0]["exception"], ZeroDivisionError)


async def test_closing_stops_accepting_and_lets_go_of_who_waits(front: Front):
    """After ``close`` nobody gets in; an attestation that still runs is released when it ends."""
    front.kernel.go_on.clear()
    client = front.connect()
    await asyncio.get_running_loop().run_in_executor(None, front.kernel.collecting.acquire)
    front.listener.close()
    with pytest.raises(ConnectionRefusedError):
        front.connect()
    front.kernel.go_on.set()
    assert await client.message() is None
    await until(lambda: bool(front.kernel.watches) and front.kernel.open == 0)
    front.listener = _Closed()  # type: ignore[assignment]


class _Closed:
    def close(self) -> None:
        """It was."""


# -- listen ---------------------------------------------------------------------------------------------------------


def test_the_socket_is_open_to_connect_and_passes_credentials(short_tmp: Path):
    """Anybody may connect; every read will name its writer."""
    with listen(short_tmp / "a.sock") as sock:
        assert (short_tmp / "a.sock").stat().st_mode & 0o777 == 0o666
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 1


def test_a_stale_socket_is_replaced(short_tmp: Path):
    """What a crashed daemon left behind is no obstacle."""
    path = short_tmp / "a.sock"
    listen(path).close()
    assert path.exists()
    listen(path).close()


def test_a_socket_that_answers_is_left_alone(short_tmp: Path):
    """Another daemon's socket is not taken from it, even with its backlog full."""
    path = short_tmp / "a.sock"
    with listen(path) as first:
        with pytest.raises(ConfigurationError, match="another process listens there"):
            listen(path)
        first.listen(0)
        with pytest.raises(ConfigurationError, match="another process listens there"):
            listen(path)
        assert path.exists()


def test_what_is_not_a_socket_is_left_alone(short_tmp: Path):
    """A file in the way is not removed."""
    path = short_tmp / "a.sock"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="not a socket") as found:
        listen(path)
    assert found.value.hint
    assert path.read_text() == "precious"


@pytest.mark.root
def test_somebody_elses_socket_is_left_alone(short_tmp: Path):
    """A socket of another uid is reported with both uids and stays."""
    path = short_tmp / "a.sock"
    listen(path).close()
    os.chown(path, 60_001, 60_001)
    with pytest.raises(ConfigurationError, match="belongs to uid 60001, not to uid 0"):
        listen(path)
    assert path.exists()


def test_a_directory_that_is_not_there_is_said_to_be_so(short_tmp: Path):
    """The reason of the operating system is part of the error."""
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        listen(short_tmp / "no" / "a.sock")


def test_the_umask_is_as_before(short_tmp: Path):
    """Listening changes no setting of the process."""
    before = os.umask(0o027)
    os.umask(before)
    listen(short_tmp / "a.sock").close()
    after = os.umask(before)
    assert after == before


# -- admission ------------------------------------------------------------------------------------------------------


def test_admission_counts_per_uid():
    """One uid's crowd is not another's."""
    admission = Admission(connections=2, attesting=2)
    assert [admission.enter(1000) for _ in range(3)] == [True, True, False]
    assert admission.enter(1001)
    admission.attested(1000)
    assert not admission.enter(1000)  # still open
    admission.leave(1000)
    assert admission.enter(1000)


def test_admission_forgets_who_has_left():
    """A uid that has no connection costs no memory, and starts anew."""
    admission = Admission(connections=1, attesting=1)
    for _ in range(3):
        assert admission.enter(7)
        admission.attested(7)
        admission.leave(7)
    assert not admission._open
    assert not admission._waiting


def test_other_limits_hold_from_now_on():
    """A reload changes the limits; what is open stays open."""
    admission = Admission(connections=5, attesting=5)
    for _ in range(3):
        admission.enter(1)
    admission.set_limits(connections=2, attesting=2)
    assert not admission.enter(1)
    admission.set_limits(connections=4, attesting=4)
    assert admission.enter(1)
    assert json.dumps(dict(admission._open)) == '{"1": 4}'


def test_new_connections_of_a_uid_are_counted_by_the_minute():
    """Who was quiet may use a minute's worth at once, then waits its share of the time; others are not concerned."""
    now = [0.0]
    admission = Admission(connections=1000, attesting=1000, a_minute=60, clock=lambda: now[0])
    assert sum(admission.enter(5) for _ in range(70)) == 60
    assert admission.enter(6)
    now[0] = 10.0
    assert sum(admission.enter(5) for _ in range(70)) == 10
    now[0] = 1000.0
    assert sum(admission.enter(5) for _ in range(70)) == 60
