"""A client's socket, its connection and, once something is forwarded, a back end; over real sockets."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from attestd.enforcement.bindings import Bindings
from attestd.enforcement.connection import Connection, Take
from attestd.enforcement.link import Link, StreamLink
from attestd.enforcement.proof import Proof
from attestd.enforcement.session import Session
from attestd.errors import Cause
from attestd.mediation import Mediator
from attestd.wire.model import Limits
from tests.fakes.backs import SocketBack
from tests.fakes.kernel import FakeWatch
from tests.fakes.mediation import MemoryAudit, ScriptedCaller
from tests.support.dialogue import ME, SECRET, ask
from tests.support.streams import pair
from tests.support.waiting import until

LIMITS = Limits(message_bytes=4 << 20)


class PidCaller(ScriptedCaller):
    """The peer is this very process."""

    def verify(self, writer_pid: int) -> Cause | None:
        """Only we write."""
        return self.changed or (Cause.WRITER_MISMATCH if writer_pid not in (0, os.getpid()) else None)


class Wired:
    """Client socket, connection and, once something is forwarded, a back end."""

    def __init__(self, *, peer_pid: int | None = None, take: Take | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.caller = PidCaller(("call_tool", "echo"), ("list_roots", ""))
        self.audit = MemoryAudit()
        self.exited, self.exit_end = os.pipe()
        self.watch = FakeWatch(fds=(self.exited,))
        self.backs: list[SocketBack] = []
        self.trouble: Exception | None = None
        self.opening = asyncio.Event()
        self.opening.set()
        self.ended: list[tuple[str, str]] = []
        sock, self.client = pair()
        self.connection = Connection(
            loop=loop,
            sock=sock,
            session=Session(
                mediator=Mediator(self.caller, self.audit),
                proof=Proof(relayed=False, old_bytes=0, challenge=SECRET),
                bindings=Bindings(),
                owner=ME,
                limits=LIMITS,
                shared=False,
                learn=lambda _kind, _result: None,
            ),
            watch=self.watch,
            peer_pid=os.getpid() if peer_pid is None else peer_pid,
            limits=LIMITS,
            open_link=self._open_link,
            ended=lambda _connection, cause, text: self.ended.append((cause, text)),
            take=take,
        )

    async def _open_link(self, connection: Connection) -> Link:
        await self.opening.wait()
        if self.trouble is not None:
            raise self.trouble
        self.backs.append(SocketBack())
        return StreamLink(asyncio.get_running_loop(), self.backs[-1], connection, LIMITS)

    async def server(self) -> Any:
        """The far end of the back end, once it is open."""
        await until(lambda: bool(self.backs))
        return self.backs[-1].far

    async def initialize(self) -> Wired:
        """The handshake."""
        await self.client.send(ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 0))
        server = await self.server()
        assert (await server.message())["method"] == "initialize"
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        await server.send({"jsonrpc": "2.0", "id": 0, "result": result})
        assert (await self.client.message())["id"] == 0
        return self

    async def close(self) -> None:
        """Release everything."""
        self.connection.close(Cause.SHUTTING_DOWN, "the test is over")
        self.client.close()
        for back in self.backs:
            back.far.close()
        await until(lambda: self.connection._sock.fileno() < 0)
        os.close(self.exited)
        os.close(self.exit_end)
