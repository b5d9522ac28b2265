"""``subscriptions/listen`` of a modern client, carried out on a legacy server.

Honoured is what the server can do: list changes that it announced, and the URIs that it let us subscribe to. The
acknowledgement goes out when it is known, and before anything else of the stream; each notification names the stream.
"""

from __future__ import annotations

from typing import Final

import msgspec

from attestd.enforcement.bridge_effects import Body, BridgeEffect, Id, Speaker, request
from attestd.wire.lookalike import META, META_SUBSCRIPTION
from attestd.wire.model import Json, Kind
from attestd.wire.server import ServerMessage
from attestd.wire.translate import meta_of

_CHANGES: Final = {
    "toolsListChanged": ("tools", "notifications/tools/list_changed"),
    "promptsListChanged": ("prompts", "notifications/prompts/list_changed"),
    "resourcesListChanged": ("resources", "notifications/resources/list_changed"),
}


class Listen(msgspec.Struct, kw_only=True):
    """One open stream."""

    client_id: Id
    changes: dict[str, str]
    """Filter key to the notification that it lets through."""
    honoured: list[str] = []
    asking: dict[str, str] = {}
    """Our request to the URI that it subscribes to."""


class Listens:
    """Every stream of one connection."""

    def __init__(self, speaker: Speaker, capabilities: Body) -> None:
        self._speaker = speaker
        self._capabilities = capabilities
        self._open: dict[Id, Listen] = {}

    def open(self, client_id: Id, wanted: Body) -> list[BridgeEffect]:
        """Begin a stream."""
        changes = {
            key: method
            for key, (kind, method) in _CHANGES.items()
            if wanted.get(key) is True and self._can(kind, "listChanged")
        }
        listen = Listen(client_id=client_id, changes=changes)
        self._open[client_id] = listen
        uris = dict.fromkeys(wanted.get("resourceSubscriptions") or ()) if self._can("resources", "subscribe") else {}
        effects: list[BridgeEffect] = []
        for uri in uris:
            own = self._speaker.new_id()
            listen.asking[own] = uri
            effects.append(request(own, "resources/subscribe", {"uri": uri}))
        return effects or self._acknowledge(listen)

    def close(self, client_id: Json) -> list[BridgeEffect]:
        """The client ends a stream: unsubscribe from what no other stream wants."""
        listen = self._open.pop(client_id, None) if isinstance(client_id, str | int) else None
        if listen is None:
            return []
        still = {uri for each in self._open.values() for uri in (*each.honoured, *each.asking.values())}
        return [
            request(self._speaker.new_id(), "resources/unsubscribe", {"uri": uri})
            for uri in dict.fromkeys((*listen.honoured, *listen.asking.values()))
            if uri not in still
        ]

    def answered(self, message: ServerMessage) -> list[BridgeEffect]:
        """The server's answer to a subscription of ours."""
        return self._settled(message.id, honoured=message.kind is Kind.RESULT)

    def failed(self, request_id: Id) -> list[BridgeEffect]:
        """Its answer is not MCP."""
        return self._settled(request_id, honoured=False)

    def told(self, method: str, params: Body) -> list[BridgeEffect]:
        """A notification of the server, once for each stream that wants it."""
        if method == "notifications/resources/updated":
            uri = str(params.get("uri", ""))
            exact = [each for each in self._ready() if uri in each.honoured]
            streams = exact or [
                each for each in self._ready() if any(uri.startswith(f"{own}/") for own in each.honoured)
            ]
        else:
            streams = [each for each in self._ready() if method in each.changes.values()]
        return [self._speaker.told(method, _tagged(params, each.client_id)) for each in streams]

    def _settled(self, own: Json, *, honoured: bool) -> list[BridgeEffect]:
        for listen in self._open.values():
            uri = listen.asking.pop(own, None)
            if uri is not None:
                if honoured:
                    listen.honoured.append(uri)
                return [] if listen.asking else self._acknowledge(listen)
        return []

    def _acknowledge(self, listen: Listen) -> list[BridgeEffect]:
        filters: Body = dict.fromkeys(listen.changes, True)
        if listen.honoured:
            filters["resourceSubscriptions"] = listen.honoured
        params = _tagged({"notifications": filters}, listen.client_id)
        return [self._speaker.told("notifications/subscriptions/acknowledged", params)]

    def _ready(self) -> list[Listen]:
        return [each for each in self._open.values() if not each.asking]

    def _can(self, kind: str, what: str) -> bool:
        offered = self._capabilities.get(kind)
        return isinstance(offered, dict) and offered.get(what) is True


def _tagged(params: Body, client_id: Id) -> Body:
    return {**params, META: {**meta_of(params), META_SUBSCRIPTION: client_id}}
