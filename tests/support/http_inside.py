"""An HTTP front inside the test: real sockets and sessions, a caller that permits by a list, back ends in the test."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from attestd.enforcement.bindings import Bindings
from attestd.enforcement.http_connection import HttpCaller, HttpConnection
from attestd.enforcement.http_front import HttpFront
from attestd.enforcement.http_session import HttpSession
from attestd.enforcement.link import Link, ServerError, StreamLink
from attestd.enforcement.proof import ManyProof, Marks
from attestd.enforcement.session import Session
from attestd.enforcement.shared_watch import SharedWatch
from attestd.errors import Cause
from attestd.evidence.model import Peer
from attestd.mediation import Attested, Mediator
from attestd.wire.model import Limits
from tests.fakes.backs import SocketBack
from tests.fakes.kernel import FakeWatch
from tests.fakes.mediation import MemoryAudit, ScriptedCaller
from tests.support.dialogue import ME, SECRET
from tests.support.http_client import Response, parse_response
from tests.support.results import make_evidence, make_result
from tests.support.streams import Far, pair
from tests.support.waiting import until

LIMITS = Limits(message_bytes=1 << 20)
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "s", "version": "1"},
}
INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


class PidCaller(ScriptedCaller):
    """The peer is this very process."""

    def verify(self, writer_pid: int) -> Cause | None:
        """Only we write."""
        return self.changed or (Cause.WRITER_MISMATCH if writer_pid not in (0, os.getpid()) else None)


class Web:
    """The far end of one HTTP connection."""

    def __init__(self, far: Far, host: str) -> None:
        self.far = far
        self.host = host
        self.raw = b""

    async def send(self, raw: bytes) -> None:
        """Bytes."""
        await self.far.send(raw)

    async def post(self, body: Any, path: str = "/mcp", method: str = "POST", **headers: str) -> None:
        """One request."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {"host": self.host, **({"content-type": "application/json"} if content else {}), **headers}
        lines = [f"{key.replace('_', '-')}: {value}" for key, value in given.items()]
        lines += [f"content-length: {len(content)}"] if content else []
        await self.send(f"{method} {path} HTTP/1.1\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + content)

    async def response(self, events: int | None = None) -> Response:
        """The next answer; of a stream only until it has so many events."""
        while True:
            found, self.raw = parse_response(self.raw, events)
            if found is not None:
                return found
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.far.sock, 1 << 18), 10)
            assert data, f"the connection ended: {self.raw!r}"
            self.raw += data

    async def ask(self, body: Any, path: str = "/mcp", method: str = "POST", **headers: str) -> Response:
        """A request and its answer."""
        await self.post(body, path, method, **headers)
        return await self.response()

    async def ended(self) -> bool:
        """Whether the connection ends without a further byte."""
        try:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.far.sock, 1), 10)
        except ConnectionResetError:
            return True
        return data == b""


class HttpInside:
    """Make it in a running loop; ``close`` it."""

    def __init__(self, *allowed: tuple[str, str], servers: tuple[str, ...] = ("time",)) -> None:
        self.loop = asyncio.get_running_loop()
        self.allowed = allowed
        self.admitted = True
        self.limit = 100
        self.origins: tuple[str, ...] = ("http://page.example",)
        self.servers = servers
        self.callers: list[PidCaller] = []
        self.audit = MemoryAudit()
        self.backs: list[SocketBack] = []
        self.sessions: list[HttpSession] = []
        self.ended: list[tuple[str, str]] = []
        self.refusals: list[tuple[str, Cause]] = []
        self.gone = 0
        self.webs: list[Web] = []
        self.watches: list[FakeWatch] = []
        self.trouble: ServerError | None = None
        self.front = HttpFront(
            loop=self.loop,
            limits=lambda: LIMITS,
            origins=lambda: self.origins,
            sessions_per_uid=lambda: self.limit,
            annotations=lambda _server, _uid, tool: {("region",): "Region"} if tool == "regional" else {},
            opener=self._open,
            refused=lambda server, _peer, cause, _text: self.refusals.append((server, cause)),
            left=self._left,
        )

    def connect(
        self, *, unix: bool = True, old: float = 0, process: str = "boot/1/0", level: int = 1, pid: int = 0
    ) -> Web:
        """A connection of this process."""
        if unix:
            ours, far = pair()
        else:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            far = Far(theirs)
        watch = FakeWatch()
        self.watches.append(watch)
        peer = Peer(pid=pid or os.getpid(), uid=1, gid=1, groups=(), security_label=None, source="proved")
        result = make_result(instance=process, level=level)
        caller = HttpCaller(
            peer=peer,
            attested=Attested(evidence=make_evidence(), result=result, watch=watch),
            watch=SharedWatch(self.loop, watch),
            marks=Marks(old),
            server="time" if unix else None,
            hosts=None if unix else frozenset({"127.0.0.1:8080"}),
        )
        serve(self.front, ours, caller)
        self.webs.append(Web(far, "localhost" if unix else "127.0.0.1:8080"))
        return self.webs[-1]

    async def session(self, web: Web, path: str = "/mcp", version: str = "2025-11-25") -> str:
        """An initialised session; its id."""
        before = len(self.backs)
        params = {**INITIALIZE, "protocolVersion": version}
        await web.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}, path)
        await until(lambda: len(self.backs) > before)
        await self.far.message()
        await self.far.send({"jsonrpc": "2.0", "id": 0, "result": {**HELLO, "protocolVersion": version}})
        return (await web.response()).headers["mcp-session-id"]

    @property
    def far(self) -> Far:
        """The server of the newest session."""
        return self.backs[-1].far

    async def forwarded(self) -> Any:
        """What the server of the newest session gets next."""
        await until(lambda: bool(self.backs))
        return await self.far.message()

    def close(self) -> None:
        """End everything."""
        for session in list(self.sessions):
            session.close(Cause.SHUTTING_DOWN, "the test is over")
        self.front.close()
        for web in self.webs:
            web.far.close()
        for back in self.backs:
            back.far.close()

    def _left(self, _peer: Peer) -> None:
        self.gone += 1

    def _open(
        self, server: str, kind: str, name: str, caller: HttpCaller, ended: Callable[[HttpSession, str, str], None]
    ) -> HttpSession | None:
        if server not in self.servers:
            return None
        scripted = PidCaller(*self.allowed)
        scripted.admitted = self.admitted
        self.callers.append(scripted)
        proof = ManyProof(SECRET)

        def both(session: HttpSession, cause: str, text: str) -> None:
            ended(session, cause, text)
            self.sessions.remove(session)
            self.ended.append((cause, text))

        session = HttpSession(
            loop=self.loop,
            kind=kind,
            name=name,
            word="ab",
            caller=caller,
            session=Session(
                mediator=Mediator(scripted, self.audit),
                proof=proof,
                bindings=Bindings(),
                owner=ME,
                limits=LIMITS,
                shared=False,
                learn=lambda _kind, _result: None,
            ),
            proof=proof,
            open_link=self._link,
            ended=both,
        )
        self.sessions.append(session)
        return session

    async def _link(self, owner: Any) -> Link:
        if self.trouble is not None:
            raise self.trouble
        back = SocketBack()
        self.backs.append(back)
        return StreamLink(self.loop, back, owner, LIMITS)


def serve(front: HttpFront, sock: socket.socket, caller: HttpCaller) -> HttpConnection:
    """As ``HttpFront.serve``; a socket pair stands for TCP, which it has no options of."""
    if caller.unix:
        return front.serve(sock, caller)
    connection = HttpConnection(
        loop=front._loop,
        sock=sock,
        caller=caller,
        body_bytes=LIMITS.message_bytes,
        respond=front.respond,
        foreign=front._foreign,
        refused=front._refused_as_http,
        ended=front._connection_ended,
    )
    front.connections.add(connection)
    return connection
