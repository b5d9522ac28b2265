"""The control server against real sockets and real other processes."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from attestd.control import messages as m
from attestd.control.service import ControlCaller
from attestd.daemon.control_server import Attested, ControlLimits, ControlServer
from attestd.errors import Cause, ConfigurationError, EvidenceError
from attestd.evidence.model import Peer
from tests.fakes.service import FakeService
from tests.support.control_daemon import PidWatch, caller_of, peer_of, server
from tests.support.waiting import until


class Client:
    """A bare client: it can send anything at any time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.nonce = ""

    async def line(self) -> dict[str, Any]:
        """The next line; {} at the end."""
        data = await asyncio.wait_for(self.reader.readline(), 10)
        return json.loads(data) if data else {}

    async def hello(self) -> dict[str, Any]:
        """The hello line."""
        said = await self.line()
        self.nonce = said.get("nonce", "")
        return said

    def send(self, data: bytes) -> None:
        """Raw bytes."""
        self.writer.write(data)

    def ask(self, kind: str, **fields: Any) -> None:
        """One good request."""
        self.send(self.request(kind, **fields))

    def request(self, kind: str, **fields: Any) -> bytes:
        """One good request, not sent."""
        return (
            json.dumps({"protocol": "1.0", "nonce": self.nonce, "request": {"type": kind, **fields}}).encode() + b"\n"
        )

    async def ended(self) -> bool:
        """Whether the server has closed the connection."""
        with contextlib.suppress(ConnectionResetError):
            return await asyncio.wait_for(self.reader.read(), 10) == b""
        return True

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await self.writer.wait_closed()


class Bed:
    """A running server and what it was given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.service = FakeService()
        self.bugs: list[BaseException] = []
        self.watches: list[PidWatch] = []
        self.server: ControlServer[str] | None = None
        self.clients: list[Client] = []

    def start(self, **changes: Any) -> None:
        """Serve."""
        values = {"on_bug": self.bugs.append, "attest": self.attest, **changes}
        self.server = server(self.path, self.service, **values)
        self.server.start()

    async def attest(self, descriptor: int) -> Attested[str]:
        """Attest like a worker, keeping the watch for the test."""
        attested = caller_of(descriptor, "clean-chain")
        assert isinstance(attested.watch, PidWatch)
        self.watches.append(attested.watch)
        return attested

    async def connect(self) -> Client:
        """A new client."""
        client = Client(*await asyncio.open_unix_connection(str(self.path)))
        self.clients.append(client)
        return client

    async def greeted(self) -> Client:
        """A client that has had its hello."""
        client = await self.connect()
        assert (await client.hello())["type"] == "hello"
        return client


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    """A bed whose server and clients end with the test."""
    made = Bed(tmp_path / "c.sock")
    yield made
    for client in made.clients:
        await client.close()
    if made.server is not None:
        await made.server.close()


async def test_hello_comes_first_then_item_then_done(bed: Bed) -> None:
    """The daemon speaks first, answers a request with its item, and ends the answer."""
    bed.start()
    client = await bed.greeted()
    client.ask("status")
    item = await client.line()
    assert (item["type"], item["data"]["mode"]) == ("item", "user")
    assert await client.line() == {"type": "done"}


async def test_second_request_on_one_connection(bed: Bed) -> None:
    """After its answer a connection takes the next request."""
    bed.start()
    client = await bed.greeted()
    for _ in range(3):
        client.ask("reload")
        assert (await client.line())["data"]["generation"] == 4
        assert (await client.line())["type"] == "done"


async def test_many_and_progress(bed: Bed) -> None:
    """A list is one item each, and progress comes between."""
    bed.start()
    client = await bed.greeted()
    client.ask("doctor")
    assert [(await client.line())["type"] for _ in range(3)] == ["item", "item", "done"]
    client.ask("audit-verify")
    assert [(await client.line())["type"] for _ in range(3)] == ["progress", "item", "done"]


async def test_bytes_before_the_attestation_are_refused(bed: Bed) -> None:
    """A request that was written before hello cannot know the nonce and is not served."""
    bed.start()
    client = await bed.connect()
    client.send(client.request("approve", pending="7F3K-9QRT", terms={"lifetime": "8h"}))
    await client.hello()
    refused = await client.line()
    assert (refused["code"], refused["exit_code"]) == ("not_permitted", 4)
    assert await client.ended()
    assert "7F3K-9QRT" in bed.service.waiting


async def test_the_nonce_of_another_connection_is_refused(bed: Bed) -> None:
    """Every connection has a nonce of its own."""
    bed.start()
    first, second = await bed.greeted(), await bed.greeted()
    assert first.nonce != second.nonce
    second.nonce = first.nonce
    second.ask("status")
    assert (await second.line())["code"] == "not_permitted"


async def test_another_writer_is_refused(bed: Bed) -> None:
    """A child that inherited the connection cannot make a request with it, even knowing the nonce."""
    bed.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(bed.path))
        loop = asyncio.get_running_loop()
        nonce = json.loads(await loop.run_in_executor(None, sock.recv, 65536))["nonce"]
        request = json.dumps({"protocol": "1.0", "nonce": nonce, "request": {"type": "status"}}) + "\n"
        code = f"import os; os.write({sock.fileno()}, {request.encode()!r})"
        await loop.run_in_executor(
            None, lambda: subprocess.run([sys.executable, "-c", code], pass_fds=[sock.fileno()], check=True)
        )
        refused = json.loads(await loop.run_in_executor(None, sock.recv, 65536))
        assert (refused["code"], refused["exit_code"]) == ("not_permitted", 4)
        assert await loop.run_in_executor(None, sock.recv, 65536) == b""


async def test_half_a_line_of_each_of_two_writers_is_refused(bed: Bed) -> None:
    """One request cannot be put together by two processes."""
    bed.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(bed.path))
        loop = asyncio.get_running_loop()
        nonce = json.loads(await loop.run_in_executor(None, sock.recv, 65536))["nonce"]
        request = (json.dumps({"protocol": "1.0", "nonce": nonce, "request": {"type": "status"}}) + "\n").encode()
        sock.sendall(request[:10])
        code = f"import os; os.write({sock.fileno()}, {request[10:]!r})"
        await loop.run_in_executor(
            None, lambda: subprocess.run([sys.executable, "-c", code], pass_fds=[sock.fileno()], check=True)
        )
        assert json.loads(await loop.run_in_executor(None, sock.recv, 65536))["code"] == "not_permitted"


async def test_a_changed_caller_is_refused(bed: Bed) -> None:
    """When the watch says that the image has changed, nothing is served and the connection ends."""
    bed.start()
    client = await bed.greeted()
    bed.watches[0].cause = Cause.IMAGE_CHANGED
    client.ask("status")
    refused = await client.line()
    assert "image_changed" in refused["message"]
    assert await client.ended()


async def test_the_caller_is_proven_again_after_the_authorization(bed: Bed) -> None:
    """A caller that changes while it is authorized gets nothing done."""
    bed.start()
    client = await bed.greeted()

    async def slow(caller: ControlCaller[str], request: m.AnyRequest) -> ControlCaller[str]:
        del request
        bed.watches[0].cause = Cause.CHAIN_CHANGED
        return caller

    bed.service.authorize = slow  # type: ignore[method-assign]
    client.ask("approve", pending="7F3K-9QRT", terms={"lifetime": "8h"})
    assert "chain_changed" in (await client.line())["message"]
    assert "7F3K-9QRT" in bed.service.waiting


async def test_a_client_is_told_that_a_person_is_asked_and_may_go(bed: Bed) -> None:
    """While the authorization waits there is progress; when the client hangs up, the question is taken back."""
    bed.start(limits=ControlLimits(waiting_s=0.02))
    client = await bed.greeted()
    taken_back = asyncio.Event()

    async def waits(caller: ControlCaller[str], request: m.AnyRequest) -> ControlCaller[str]:
        del request
        try:
            await asyncio.Event().wait()
        finally:
            taken_back.set()
        return caller

    bed.service.authorize = waits  # type: ignore[method-assign]
    client.ask("approve", pending="7F3K-9QRT", terms={"lifetime": "8h"})
    for _ in range(3):
        assert await client.line() == {"type": "progress", "done": 0, "total": 0, "what": "authorization"}
    await client.close()
    await asyncio.wait_for(taken_back.wait(), 10)
    assert "7F3K-9QRT" in bed.service.waiting


async def test_marked_requests_need_an_approver_and_the_others_do_not(bed: Bed) -> None:
    """A caller without the right may look at everything and change nothing, and each refusal is recorded."""

    async def nobody(descriptor: int) -> Attested[str]:
        return caller_of(descriptor, "")

    bed.start(attest=nobody)
    client = await bed.greeted()
    changing = [
        ("approve", {"pending": "7F3K-9QRT"}),
        ("deny", {"pending": "7F3K-9QRT"}),
        ("grants-revoke", {"grants": ["g-1"]}),
        ("grants-renew", {"grant": "g-1", "lifetime": "1h"}),
        ("servers-add", {"name": "x"}),
        ("servers-trust", {"name": "time"}),
        ("servers-remove", {"name": "time"}),
        ("reload", {}),
    ]
    for kind, fields in changing:
        client.ask(kind, **fields)
        refused = await client.line()
        assert (kind, refused.get("code"), refused.get("exit_code")) == (kind, "not_permitted", 4)
    assert sum(record.cause == "not_approver" for record in bed.service.records) == len(changing)
    assert bed.service.granted["g-1"].revoked is None
    client.ask("grants")
    assert (await client.line())["type"] == "item"


async def test_another_user_is_refused_at_the_door(bed: Bed) -> None:
    """In user mode only the daemon's own uid and root may speak, and nobody else is attested."""

    def stranger(descriptor: int) -> Peer:
        mine = peer_of(descriptor)
        return Peer(pid=mine.pid, uid=54321, gid=1, groups=(), security_label=None, source="pid-only")

    bed.start(peer_of=stranger)
    client = await bed.connect()
    refused = await client.hello()
    assert (refused["type"], refused["code"]) == ("failure", "not_permitted")
    assert await client.ended()
    assert bed.watches == []


async def test_a_peer_that_cannot_be_named_is_dropped(bed: Bed) -> None:
    """Where the kernel cannot say who connects, nothing is said."""

    def unseen(descriptor: int) -> Peer:
        raise EvidenceError(Cause.FOREIGN_NAMESPACE, f"cannot see the peer of {descriptor}")

    bed.start(peer_of=unseen)
    assert await (await bed.connect()).ended()


async def test_a_failed_attestation_is_told(bed: Bed) -> None:
    """An AttestdError of the attestation reaches the client, and the connection ends."""

    async def refuse(descriptor: int) -> Attested[str]:
        raise EvidenceError(Cause.INCONSISTENT, f"cannot attest {descriptor}", hint="try again")

    bed.start(attest=refuse)
    client = await bed.connect()
    said = await client.hello()
    assert (said["code"], said["hint"]) == ("evidence", "try again")
    assert await client.ended()


async def test_a_slow_attestation_is_given_up_and_its_watch_closed(bed: Bed) -> None:
    """A worker that ends too late does not leak what it holds, and its descriptor stays open until then."""
    go = asyncio.Event()
    made: list[Attested[str]] = []

    async def late(descriptor: int) -> Attested[str]:
        await go.wait()
        os.fstat(descriptor)
        made.append(caller_of(descriptor, "root"))
        return made[0]

    bed.start(attest=late, limits=ControlLimits(attest_s=0.05))
    client = await bed.connect()
    assert (await client.hello())["code"] == "not_permitted"
    go.set()
    assert await client.ended()
    assert isinstance(made[0].watch, PidWatch)
    assert made[0].watch.closed


async def test_a_caller_without_evidence_has_no_watch_and_still_only_its_own_writer(bed: Bed) -> None:
    """With no watch the writer is compared all the same."""

    async def unknown(descriptor: int) -> Attested[str]:
        peer = peer_of(descriptor)
        return Attested(caller=ControlCaller(uid=peer.uid, pid=peer.pid, result=None, how=""), watch=None)

    bed.start(attest=unknown)
    client = await bed.greeted()
    client.ask("status")
    assert (await client.line())["type"] == "item"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\n", "usage"),
        (b"garbage\n", "usage"),
        (b"\xff\xfe\n", "usage"),
        (b"[" * 100_000 + b"\n", "usage"),
        (b'{"protocol":"1.0","nonce":"x","request":{"type":"nothing"}}\n', "usage"),
        (b'{"protocol":"2.0","surprise":true}\n', "usage"),
        (b'{"protocol":"1.0","nonce":"x","request":{"type":"status","more":1}}\n', "usage"),
        (b'{"protocol":"1.0","nonce":"x","request":{"type":"status"}}\n', "not_permitted"),
    ],
)
async def test_garbage_is_told_and_ends_the_connection(bed: Bed, line: bytes, code: str) -> None:
    """What is not a request of this connection gets a clear error, and other clients go on."""
    bed.start()
    client = await bed.greeted()
    client.send(line)
    assert (await client.line())["code"] == code
    assert await client.ended()
    assert bed.bugs == []
    other = await bed.greeted()
    other.ask("status")
    assert (await other.line())["type"] == "item"


async def test_another_major_version_is_named(bed: Bed) -> None:
    """A client of another protocol version is told both versions."""
    bed.start()
    client = await bed.greeted()
    client.send(b'{"protocol":"2.7","nonce":"%s","request":{"type":"status","new":1}}\n' % client.nonce.encode())
    message = (await client.line())["message"]
    assert "'2.7'" in message
    assert "'1.0'" in message


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_line_that_is_too_long_is_refused(bed: Bed, end: bytes) -> None:
    """A line beyond 1 MiB is refused, whether or not it ends."""
    bed.start()
    client = await bed.greeted()
    client.send(b"x" * (m.REQUEST_BYTES + 1) + end)
    said = await client.line()
    assert (said["code"], str(m.REQUEST_BYTES) in said["message"]) == ("usage", True)


async def test_half_a_message_and_silence_is_dropped(bed: Bed) -> None:
    """A client that stops in the middle of a line is closed after the limit."""
    bed.start(limits=ControlLimits(request_s=0.1))
    client = await bed.greeted()
    client.send(b'{"protocol":')
    assert await client.ended()
    assert bed.watches[0].closed
    assert bed.bugs == []


def _descriptors() -> set[str]:
    return {entry.name for entry in os.scandir("/proc/self/fd")}


async def test_descriptors_sent_along_end_the_connection(bed: Bed) -> None:
    """Descriptors are not taken: none is open in the daemon afterwards."""
    bed.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(bed.path))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sock.recv, 65536)
        before = _descriptors()
        rights = array.array("i", [sock.fileno()])
        sock.sendmsg([b"x\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        said = json.loads(await loop.run_in_executor(None, sock.recv, 65536))
        assert "descriptors" in said["message"]
        assert _descriptors() <= before


async def test_connections_are_bounded_per_user(bed: Bed) -> None:
    """One connection too many is refused with what to do, and room comes back when one ends."""
    bed.start(limits=ControlLimits(connections_per_uid=2))
    first, _ = await bed.greeted(), await bed.greeted()
    third = await bed.connect()
    said = await third.hello()
    assert (said["code"], "2 of 2" in said["message"]) == ("failed", True)
    await first.close()
    assert bed.server is not None
    opened = bed.server._open
    await until(lambda: opened.total() <= 1)
    assert (await (await bed.connect()).hello())["type"] == "hello"


async def test_a_stream_ends_when_its_client_goes(bed: Bed) -> None:
    """A follower that hangs up is noticed while nothing is written, and its stream is closed."""
    bed.start()
    client = await bed.greeted()
    client.ask("audit-tail", lines=1, follow=True)
    assert (await client.line())["type"] == "item"
    await client.close()
    await until(lambda: bed.service.closed_streams == 1)
    assert bed.bugs == []


async def test_following_shows_new_records(bed: Bed) -> None:
    """With follow, a record that is made later arrives."""
    bed.start()
    client = await bed.greeted()
    client.ask("audit-tail", lines=0, follow=True)
    other = await bed.greeted()
    other.ask("approve", pending="7F3K-9QRT", terms={"lifetime": "8h"})
    assert (await other.line())["type"] == "item"
    assert (await client.line())["data"]["kind"] == "admin"


async def test_a_second_request_before_the_answer_ends_the_connection(bed: Bed) -> None:
    """One request is open at a time; what is sent on top of it ends the work."""
    bed.start()
    client = await bed.greeted()
    client.ask("audit-tail", lines=0, follow=True)
    client.ask("status")
    assert await client.ended()


async def test_a_client_that_does_not_read_is_dropped(bed: Bed) -> None:
    """A slow reader does not hold an answer for ever, and others are served meanwhile."""
    bed.service.records *= 40_000
    bed.start(limits=ControlLimits(write_s=0.2))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(bed.path))
        loop = asyncio.get_running_loop()
        nonce = json.loads(await loop.run_in_executor(None, sock.recv, 65536))["nonce"]
        request = {"protocol": "1.0", "nonce": nonce, "request": {"type": "audit-tail", "lines": 40000}}
        sock.sendall(json.dumps(request).encode() + b"\n")
        other = await bed.greeted()
        other.ask("status")
        assert (await other.line())["type"] == "item"
        await until(lambda: bed.watches[0].closed)
    assert bed.bugs == []


async def test_an_answer_that_is_too_large_is_an_error(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object beyond the limit is refused on our side, and the connection lives."""
    monkeypatch.setattr("attestd.daemon.control_server.REPLY_BYTES", 100)
    bed.start()
    client = await bed.greeted()
    client.ask("status")
    assert "cannot send the answer" in (await client.line())["message"]
    client.ask("status")
    assert (await client.line())["type"] == "failure"


async def test_our_bug_is_told_as_internal_and_reported(bed: Bed) -> None:
    """An exception of the service is exit code 8 for the client and reaches on_bug; the daemon goes on."""
    bed.start()
    bed.service.bug = True
    client = await bed.greeted()
    client.ask("status")
    said = await client.line()
    assert (said["code"], said["exit_code"]) == ("internal", 8)
    assert "a bug" not in json.dumps(said)
    assert [type(bug) for bug in bed.bugs] == [ZeroDivisionError]
    other = await bed.greeted()
    other.ask("doctor")
    assert (await other.line())["type"] == "item"


async def test_a_change_is_finished_when_its_client_goes(bed: Bed) -> None:
    """A client that hangs up in the middle of an approval does not leave it half done."""
    bed.start()
    begun, go = asyncio.Event(), asyncio.Event()
    approve = bed.service.approve

    async def slow(caller: ControlCaller[str], request: m.Approve) -> Any:
        begun.set()
        await go.wait()
        return await approve(caller, request)

    bed.service.approve = slow  # type: ignore[method-assign]
    client = await bed.greeted()
    client.ask("approve", pending="7F3K-9QRT", terms={"lifetime": "8h"})
    await begun.wait()
    await client.close()
    await until(_answer_is_being_cancelled)
    go.set()
    await until(lambda: "g-2" in bed.service.granted)
    assert "7F3K-9QRT" not in bed.service.waiting


def _answer_is_being_cancelled() -> bool:
    """Whether the server has noticed that its client went."""
    return any(task.cancelling() for task in asyncio.all_tasks() if "_answer" in repr(task))


async def test_close_ends_connections_and_removes_the_socket(bed: Bed) -> None:
    """After close nothing is left: no socket file, no task, no watch."""
    bed.start()
    client = await bed.greeted()
    client.ask("audit-tail", follow=True)
    await client.line()
    assert bed.server is not None
    await bed.server.close()
    await bed.server.close()
    assert not bed.path.exists()
    assert bed.watches[0].closed
    assert not bed.server._tasks


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(bed: Bed) -> None:
    """A socket that nobody serves is taken over; one that is served is a configuration error."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(bed.path))
    bed.start()
    with pytest.raises(ConfigurationError, match="another attestd serves it"):
        server(bed.path, bed.service).start()
    await bed.greeted()


async def test_something_else_at_the_path_is_left_alone(bed: Bed) -> None:
    """A file that is not our socket is never removed."""
    bed.path.write_text("mine")
    with pytest.raises(ConfigurationError, match="expected nothing or our socket"):
        bed.start()
    assert bed.path.read_text() == "mine"


@pytest.mark.root
@pytest.mark.root
async def test_a_socket_of_another_user_is_left_alone(bed: Bed) -> None:
    """A socket that somebody else put there is a configuration error that names its owner."""
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(bed.path))
    os.chown(bed.path, 12345, 12345)
    with pytest.raises(ConfigurationError, match="12345"):
        bed.start()


async def test_a_directory_that_others_can_write_is_refused(bed: Bed) -> None:
    """Where others could replace the socket it is not opened."""
    bed.path.parent.chmod(0o777)
    with pytest.raises(ConfigurationError, match="mode 777"):
        bed.start()
    bed.path.parent.chmod(0o700)


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """A directory that is not there is a configuration error with the command that makes it."""
    with pytest.raises(ConfigurationError) as caught:
        server(tmp_path / "none" / "c.sock", FakeService()).start()
    assert "mkdir" in caught.value.hint


async def test_a_socket_of_a_later_daemon_is_not_removed(bed: Bed) -> None:
    """Close removes only the file that this server made."""
    bed.start()
    bed.path.unlink()
    bed.path.write_text("another's")
    assert bed.server is not None
    await bed.server.close()
    assert bed.path.read_text() == "another's"


async def test_running_out_of_descriptors_pauses_and_recovers(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """When accept fails for want of descriptors, it is reported, and the client is served a moment later."""
    bed.start()
    assert bed.server is not None
    listener = bed.server._listener
    assert listener is not None

    class Exhausted:
        """Fails once, then is the listener."""

        def __init__(self) -> None:
            self.failed = threading.Event()

        def fileno(self) -> int:
            return listener.fileno()

        def close(self) -> None:
            listener.close()

        def accept(self) -> Any:
            if not self.failed.is_set():
                self.failed.set()
                raise OSError(24, "Too many open files")
            return listener.accept()

    monkeypatch.setattr(bed.server, "_listener", Exhausted())
    await bed.greeted()
    assert [type(bug) for bug in bed.bugs] == [OSError]


async def test_an_error_of_the_service_reaches_the_client_whole(bed: Bed) -> None:
    """Code, message, hint and exit code of an AttestdError arrive as they are, and the connection lives."""
    bed.start()
    client = await bed.greeted()
    client.ask("grants-show", grant="g-99")
    said = await client.line()
    assert said == {
        "type": "failure",
        "code": "nothing_to_do",
        "message": "cannot find the grant 'g-99'",
        "hint": "see: attestctl grants list",
        "exit_code": 9,
    }
    client.ask("status")
    assert (await client.line())["type"] == "item"
