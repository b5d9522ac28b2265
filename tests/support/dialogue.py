"""A session as a dialogue: what one side says goes in, what the others are told comes out, as decoded messages."""

from __future__ import annotations

import json
from typing import Any

from attestd.enforcement.bindings import Bindings, Owner
from attestd.enforcement.effects import Effect, End, ToClient, ToServer, Withdraw, cancelled
from attestd.enforcement.proof import Proof
from attestd.enforcement.session import Session
from attestd.mediation import Mediator
from attestd.wire.framing import LineFramer
from attestd.wire.model import Limits, ListKind
from attestd.wire.server import parse_server_line
from tests.fakes.mediation import PEER, MemoryAudit, ScriptedCaller, StoppedClock
from tests.support.wire import MODERN_META

ME: Owner = (1000, "me", "chain")
SECRET = "attestd-secret"
Body = dict[str, Any]


class Dialogue:
    """One session and its two sides. ``said`` is the whole talk since the last ``take``."""

    def __init__(
        self,
        *allowed: tuple[str, str],
        relayed: bool = False,
        old_bytes: int = 0,
        shared: bool = False,
        limits: Limits | None = None,
        bindings: Bindings | None = None,
        owner: Owner = ME,
    ) -> None:
        self.limits = limits or Limits()
        self.caller = ScriptedCaller(*allowed)
        self.audit = MemoryAudit()
        self.clock = StoppedClock()
        self.learned: list[tuple[ListKind, Body]] = []
        self.session = Session(
            mediator=Mediator(self.caller, self.audit),
            proof=Proof(relayed=relayed, old_bytes=old_bytes, challenge=SECRET),
            bindings=bindings or Bindings(),
            owner=owner,
            limits=self.limits,
            shared=shared,
            learn=lambda kind, result: self.learned.append((kind, result)),
        )
        self.framer = LineFramer(self.limits.message_bytes)
        self.said: list[tuple[str, Any]] = []

    # -- events; each returns what was said because of it -------------------------------------------------------------

    def client(self, *bodies: Body, writer: int = PEER) -> list[tuple[str, Any]]:
        """The client sends messages."""
        return self.bytes(b"".join(json.dumps(body).encode() + b"\n" for body in bodies), writer=writer)

    def bytes(self, data: bytes, *, writer: int = PEER) -> list[tuple[str, Any]]:
        """The client sends bytes."""
        effects: list[Effect] = []
        for line in self.framer.feed(data):
            effects += self.session.client_line(line, writer, self.clock)
        return self._said(effects)

    def server(self, *bodies: Body) -> list[tuple[str, Any]]:
        """The server sends messages."""
        effects: list[Effect] = []
        for body in bodies:
            message = parse_server_line(json.dumps(body).encode(), self.limits)
            effects += self.session.server_message(message, self.clock)
        return self._said(effects)

    def effects(self, effects: list[Effect]) -> list[tuple[str, Any]]:
        """What these effects say."""
        return self._said(effects)

    def request(self, method: str, params: Body | None = None, message_id: int | str = 1) -> list[tuple[str, Any]]:
        """The client asks in the legacy era."""
        return self.client(ask(method, params, message_id))

    def modern(self, method: str, params: Body | None = None, message_id: int | str = 1) -> list[tuple[str, Any]]:
        """The client asks in the modern era."""
        return self.client(ask(method, {**(params or {}), "_meta": MODERN_META}, message_id))

    def answer(self, result: Body, message_id: int | str = 1) -> list[tuple[str, Any]]:
        """The server answers."""
        return self.server({"jsonrpc": "2.0", "id": message_id, "result": result})

    def initialize(self, revision: str = "2025-11-25", **capabilities: Any) -> Dialogue:
        """The legacy handshake, without its words being kept."""
        self.request("initialize", {"protocolVersion": revision, "capabilities": {}, "clientInfo": INFO}, "init")
        found = self.answer(
            {"protocolVersion": revision, "capabilities": capabilities, "serverInfo": {"name": "s", "version": "1"}},
            "init",
        )
        assert [who for who, _ in found] == ["client"], found
        self.client({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    def _said(self, effects: list[Effect]) -> list[tuple[str, Any]]:
        said: list[tuple[str, Any]] = []
        for effect in effects:
            match effect:
                case ToClient(chunks=chunks):
                    data = b"".join(bytes(chunk) for chunk in chunks)
                    assert data.endswith(b"\n")
                    assert data.count(b"\n") == 1
                    said.append(("client", json.loads(data)))
                case ToServer(body=body, line=line):
                    if line is not None:
                        assert json.loads(line) == body
                    said.append(("server", body))
                case Withdraw(request_id=request_id):
                    said.append(("server", cancelled(request_id, "the caller's grant has ended")))
                case End(cause=cause, text=_):
                    said.append(("end", cause))
        self.said += said
        return said


INFO = {"name": "probe", "version": "1.0"}


def ask(method: str, params: Body | None = None, message_id: int | str = 1) -> Body:
    """A request."""
    return {"jsonrpc": "2.0", "id": message_id, "method": method, **({} if params is None else {"params": params})}


def tell(method: str, params: Body | None = None) -> Body:
    """A notification."""
    return {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})}


def call(tool: str, message_id: int | str = 1, **more: Any) -> Body:
    """A call of a tool."""
    return ask("tools/call", {"name": tool, "arguments": {}, **more}, message_id)


def cause(said: tuple[str, Any]) -> str:
    """The cause of a refusal that the client was told."""
    who, body = said
    assert who == "client", said
    return str(body["error"]["data"]["cause"])
