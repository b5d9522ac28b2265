"""Both sides of an era bridge as a dialogue: what the client says, what the server says, and what comes out."""

from __future__ import annotations

import itertools
from typing import Any

from attestd.enforcement.bridge import Bridge
from attestd.enforcement.bridge_effects import BridgeEffect, Eras, Habits, Refused, Send, Setting, Show
from attestd.wire.model import Limits, WireError
from attestd.wire.serialise import to_line
from attestd.wire.server import ServerMessage, forward, parse_server_line, result_of
from attestd.wire.translate import MODERN

LIMITS = Limits()
CAPABILITIES = {"roots": {}, "sampling": {}, "elicitation": {"form": {}, "url": {}}}
SERVER = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "prompts": {},
    "logging": {},
}
REFUSES = {"code": -32601, "message": "Method not found"}


def meta(**more: Any) -> dict[str, Any]:
    """The envelope of a modern client."""
    return {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
        **more,
    }


def told(message: ServerMessage) -> dict[str, Any]:
    """What the session would be shown, as an object."""
    import json

    return dict(json.loads(b"".join(bytes(part) for part in forward(message))))


class Talk:
    """One bridge, its server's side as a list of what it was sent."""

    def __init__(
        self,
        *,
        eras: Eras | None = None,
        allows: Any = lambda _: True,
        shared: bool = False,
        always: bool = True,
        habits: Habits | None = None,
    ) -> None:
        count = itertools.count(1)
        self.eras = eras if eras is not None else Eras()
        self.setting = Setting(
            limits=LIMITS,
            shared=shared,
            always=always,
            habits=habits if habits is not None else Habits(),
            own={"name": "attestd", "version": "0"},
            new_state=lambda: f"state-{next(count)}",
            allows=allows,
        )
        self.bridge = Bridge(self.setting, self.eras)
        self.sent: list[dict[str, Any]] = []
        self.shown: list[dict[str, Any]] = []
        self.refused: list[Refused] = []

    def _took(self, effects: list[BridgeEffect]) -> None:
        self.sent, self.shown, self.refused = [], [], []
        for effect in effects:
            match effect:
                case Send(body=body):
                    self.sent.append(body)
                case Show(message=message):
                    self.shown.append(told(message))
                case _:
                    self.refused.append(effect)

    def client(self, method: str, message_id: Any = None, **params: Any) -> Talk:
        """A request, or without an id a notification."""
        body: dict[str, Any] = {
            "jsonrpc": "2.0",
            **({} if message_id is None else {"id": message_id}),
            "method": method,
        }
        self._took(self.bridge.client({**body, "params": params} if params else body))
        return self

    def modern(self, method: str, message_id: Any, _meta: dict[str, Any] | None = None, **params: Any) -> Talk:
        """A modern request, with its envelope."""
        return self.client(method, message_id, **params, _meta=_meta if _meta is not None else meta())

    def answers(self, message_id: Any, result: Any = None, error: Any = None) -> Talk:
        """The client's answer to a request."""
        body = {"jsonrpc": "2.0", "id": message_id, **({"error": error} if error else {"result": result})}
        self._took(self.bridge.client(body))
        return self

    def server(self, **body: Any) -> Talk:
        """One message of the server."""
        message = parse_server_line(to_line({"jsonrpc": "2.0", **body})[:-1], LIMITS)
        self._took(self.bridge.server(message))
        return self

    def malformed(self, message_id: Any, error: WireError) -> Talk:
        """The server's answer is none."""
        self._took(self.bridge.malformed(message_id, error))
        return self

    def silent(self) -> Talk:
        """The server has not answered in time."""
        self._took(self.bridge.silent())
        return self


def before_legacy(**keys: Any) -> Talk:
    """A modern client before a legacy server, past the opening."""
    talk = Talk(**keys)
    talk.modern("server/discover", 0).server(id=0, error=REFUSES)
    talk.server(id="attestd-initialize", result=handshake())
    return talk


def handshake(**capabilities: Any) -> dict[str, Any]:
    """A legacy server's answer to initialize."""
    return {
        "protocolVersion": "2025-11-25",
        "capabilities": capabilities or SERVER,
        "serverInfo": {"name": "s", "version": "2"},
        "instructions": "be kind",
    }


def discovery(**capabilities: Any) -> dict[str, Any]:
    """A modern server's answer to server/discover."""
    return {
        "resultType": "complete",
        "supportedVersions": [MODERN],
        "capabilities": capabilities or SERVER,
        "ttlMs": 1,
        "cacheScope": "public",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "2"}},
    }


def before_modern(offers: Any = None, **keys: Any) -> Talk:
    """A legacy client before a modern server, past the opening; it listens to nothing."""
    talk = Talk(**keys)
    offers = CAPABILITIES if offers is None else offers
    info = {"name": "c", "version": "1"}
    talk.client("initialize", 0, protocolVersion="2025-06-18", capabilities=offers, clientInfo=info)
    talk.server(id=0, error={"code": -32022, "message": "no", "data": {"supported": [MODERN]}})
    talk.server(id="attestd-discover", result=discovery())
    return talk


__all__ = ["LIMITS", "result_of"]
