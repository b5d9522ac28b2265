"""The control socket: who connects is attested, then each of its requests is proven, routed and answered.

For each connection 1. The kernel's word on the peer. In user mode only the daemon's own uid and root may speak;
connection limits come next. 2. The caller is attested, outside the loop. Not a byte is read before. 3. Hello, with a
nonce that every request must carry: what was written before the attestation cannot know it. Then for each line 4.
Read it: one line of at most REQUEST_BYTES, in time, from one writer. Descriptors that come along are refused. 5.
Still the same process: the writer is the peer, image and chain are unchanged (``Watch.verify``). 6. Parse it.
``Service.authorize`` says by what right it is asked, and then step 5 once more, since that may wait for a password; the
client is told meanwhile that it goes on. 7. Answer. A client that hangs up, or sends more before its answer is
complete, ends the work that was done for it.

A refusal is told and, where the connection cannot be trusted any more, ends it. An exception of the service that is
not an AttestdError is our bug: the client is told ``internal``, ``on_bug`` gets the exception, everybody else goes
on.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from attestd import __version__
from attestd.control.lines import Done, Failure, Hello, encode, encode_reply, failure_of, parse_request
from attestd.control.messages import PROTOCOL, REPLY_BYTES, AnyRequest
from attestd.control.replies import Progress
from attestd.control.routes import ROUTES, Right, Shape
from attestd.control.service import ControlCaller, Service
from attestd.daemon.control_connection import Connection, ProofError
from attestd.daemon.control_socket import bind, unlink_own
from attestd.errors import AttestdError, ExitCode, NotPermittedError
from attestd.evidence.model import Peer
from attestd.evidence.protocol import Watch

ResultT = TypeVar("ResultT")
TAKEN_AT_ONCE = 64
TURNED_AWAY_AT_ONCE = 16
BREATH_S = 0.02
EXHAUSTED_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested(Generic[ResultT]):
    """A caller and what keeps the attestation true. ``watch`` is None where no evidence could be collected."""

    caller: ControlCaller[ResultT]
    watch: Watch | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlLimits:
    """Bounds of the control socket; seconds where the name ends in ``_s``."""

    connections: int = 64
    connections_per_uid: int = 32
    attest_s: float = 20.0
    request_s: float = 10.0
    """From hello, or from the end of the last answer, to the end of the next line."""
    write_s: float = 30.0
    """A client that does not take its answer for so long is dropped."""
    waiting_s: float = 5.0
    """How often a client is told that a person is being asked."""


@dataclass(slots=True, kw_only=True)
class ControlServer(Generic[ResultT]):
    """Serves one control socket. ``start`` and ``close`` run in the loop's thread."""

    path: Path
    service: Service[ResultT]
    peer_of: Callable[[int], Peer]
    """``Kernel.peer``: raises EvidenceError, and then nothing is said to the peer."""
    attest: Callable[[int], Awaitable[Attested[ResultT]]]
    """Attests the peer of a connected socket, in a worker. An AttestdError is told to the client and ends the
    connection."""
    only_uid: int | None
    """User mode: only this uid and root may speak. None: anybody, and the service decides what exists for whom."""
    on_bug: Callable[[BaseException], None]
    limits: ControlLimits = field(default_factory=ControlLimits)
    mode: int = 0o600
    passed: socket.socket | None = None
    """The listening socket, where the service manager made it and keeps it; its file stays when we go."""
    _listener: socket.socket | None = None
    _inode: tuple[int, int] = (0, 0)
    _open: Counter[int] = field(default_factory=Counter)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def start(self) -> None:
        """Bind, listen, accept. Raises ConfigurationError where the path is in use or in unsafe hands."""
        listener = self.passed
        if listener is None:
            listener = bind(self.path, self.mode)
            found = self.path.lstat()
            self._inode = (found.st_dev, found.st_ino)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    async def close(self) -> None:
        """Stop listening, remove our socket file, end every connection. Idempotent."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
            if self.passed is None:
                unlink_own(self.path, self._inode)
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def _accept(self) -> None:
        """Take what waits; after a flood of one user's, breathe, so that the loop serves the others."""
        turned_away = 0
        for _ in range(TAKEN_AT_ONCE):
            if self._listener is None:
                return
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # too many open files, connection aborted: the next readiness tries again
                self.on_bug(error)
                self._pause(EXHAUSTED_S)
                return
            turned_away += not self._accepted(sock)
            if turned_away >= TURNED_AWAY_AT_ONCE:
                self._pause(BREATH_S)
                return

    def _accepted(self, sock: socket.socket) -> bool:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        try:
            peer = self.peer_of(sock.fileno())  # 1
        except AttestdError:
            sock.close()
            return False
        refusal = self._refuse_at_accept(peer)
        if refusal is not None:
            with contextlib.suppress(OSError):
                sock.send(encode(failure_of(refusal)))
            sock.close()
            return False
        self._open[peer.uid] += 1
        task = asyncio.get_running_loop().create_task(self._serve(sock, peer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return True

    def _pause(self, seconds: float) -> None:
        """The listener stays readable: look again in a moment instead of spinning."""
        if self._listener is None:
            return
        loop, listener = asyncio.get_running_loop(), self._listener
        loop.remove_reader(listener.fileno())

        def again() -> None:
            if self._listener is listener:
                loop.add_reader(listener.fileno(), self._accept)

        loop.call_later(seconds, again)

    def _refuse_at_accept(self, peer: Peer) -> AttestdError | None:
        if self.only_uid is not None and peer.uid not in (self.only_uid, 0):
            return NotPermittedError(
                f"cannot serve uid {peer.uid}: this attestd belongs to uid {self.only_uid}",
                hint="ask the attestd of your own user: attestctl status",
            )
        full = self._open.total() >= self.limits.connections and peer.uid != 0  # root mends what others filled
        if self._open[peer.uid] >= self.limits.connections_per_uid or full:
            return AttestdError(
                f"cannot serve another connection of uid {peer.uid}: {self._open[peer.uid]} of "
                f"{self.limits.connections_per_uid} are open",
                hint="end an attestctl that still runs, such as: attestctl audit tail --follow",
            )
        return None

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self.on_bug(bug)

    async def _serve(self, sock: socket.socket, peer: Peer) -> None:
        connection = Connection(sock, request_s=self.limits.request_s, write_s=self.limits.write_s)
        attested: Attested[ResultT] | None = None
        try:
            attested = await self._attest(connection)
            if attested is not None:
                await self._requests(connection, attested, peer)
        except (EOFError, TimeoutError):
            return  # the client went, or says nothing: there is nobody to tell
        except OSError as error:
            if error is not connection.broken:
                raise
        finally:
            if attested is not None and attested.watch is not None:
                attested.watch.close()
            sock.close()
            self._open[peer.uid] -= 1
            if not self._open[peer.uid]:
                del self._open[peer.uid]

    async def _attest(self, connection: Connection) -> Attested[ResultT] | None:
        work = asyncio.ensure_future(self.attest(connection.sock.fileno()))  # 2
        kept: Attested[ResultT] | None = None
        try:
            # Shielded: the worker uses the descriptor, so the socket may be closed only after it has ended.
            kept = await asyncio.wait_for(asyncio.shield(work), self.limits.attest_s)
        except TimeoutError:
            await connection.send(failure_of(NotPermittedError("cannot attest the caller in time")))
        except AttestdError as error:
            await connection.send(failure_of(error))
        finally:
            if kept is None:
                _close_late((await asyncio.gather(work, return_exceptions=True))[0])
        return kept

    async def _requests(self, connection: Connection, attested: Attested[ResultT], peer: Peer) -> None:
        nonce = secrets.token_hex(16)
        await connection.send(Hello(protocol=PROTOCOL, version=__version__, nonce=nonce))  # 3
        while True:
            try:
                line = await connection.line(peer.pid)  # 4
                _prove(attested, peer.pid)  # 5
                request = parse_request(line, nonce)  # 6
            except AttestdError as error:
                await connection.send(failure_of(error))
                return
            work = asyncio.get_running_loop().create_task(self._answer(connection, attested, peer, request))
            await connection.until_done_or_gone(work)  # 7
            if not await self._tell_end(connection, work):
                return

    async def _answer(
        self, connection: Connection, attested: Attested[ResultT], peer: Peer, request: AnyRequest
    ) -> None:
        route = ROUTES[type(request)]
        caller = await self._authorized(connection, attested.caller, request)
        _prove(attested, peer.pid)
        answer = getattr(self.service, route.method)(caller, request)
        if route.shape is Shape.STREAM:
            async with contextlib.aclosing(answer) as items:
                await _send_all(connection, items)
            return
        reply = await (answer if route.right is Right.NONE else _to_its_end(answer))
        for item in reply if route.shape is Shape.MANY else (reply,):
            await connection.write(_bounded(encode_reply(item)))

    async def _authorized(
        self, connection: Connection, caller: ControlCaller[ResultT], request: AnyRequest
    ) -> ControlCaller[ResultT]:
        work = asyncio.ensure_future(self.service.authorize(caller, request))
        try:
            while not (await asyncio.wait((work,), timeout=self.limits.waiting_s))[0]:
                await connection.write(encode_reply(Progress(done=0, total=0, what="authorization")))
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))
        return work.result()

    async def _tell_end(self, connection: Connection, work: asyncio.Task[None]) -> bool:
        """Send the last line of an answer. False: the connection is over."""
        if work.cancelled():
            return False
        error = work.exception()
        if error is None:
            await connection.send(Done())
            return True
        if isinstance(error, AttestdError):
            await connection.send(failure_of(error))
            return not isinstance(error, ProofError)
        if isinstance(error, OSError) and error is connection.broken:
            return False
        self.on_bug(error)
        await connection.send(
            Failure(
                code="internal",
                message=f"attestd made a mistake: {type(error).__name__}",
                hint="the daemon's log has the details",
                exit_code=int(ExitCode.INTERNAL),
            )
        )
        return False


async def _send_all(connection: Connection, items: AsyncIterator[Any]) -> None:
    async for item in items:
        await connection.write(_bounded(encode_reply(item)))


def _bounded(line: bytes) -> bytes:
    if len(line) > REPLY_BYTES:
        raise AttestdError(
            f"cannot send the answer: it has {len(line)} bytes, at most {REPLY_BYTES} are sent in one object",
            hint="ask for less, for example with --limit",
        )
    return line


def _prove(attested: Attested[Any], writer: int) -> None:
    if attested.watch is None:
        return  # the service knows by ``result`` None that this caller is nobody; the writer was compared all the same
    cause = attested.watch.verify(writer)
    if cause is not None:
        raise ProofError(
            f"cannot accept the request: the caller is no longer the process that was attested ({cause.value})",
            hint="start attestctl again",
        )


async def _to_its_end(effect: Awaitable[Any]) -> Any:
    """Await what changes something: a client that hangs up meanwhile does not leave it half done."""
    work = asyncio.ensure_future(effect)
    try:
        return await asyncio.shield(work)
    finally:
        if not work.done():
            await asyncio.wait((work,))


def _close_late(outcome: object) -> None:
    if isinstance(outcome, Attested) and outcome.watch is not None:
        outcome.watch.close()
