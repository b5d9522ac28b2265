"""Which era a message belongs to, and which revision it declares.

A message tells at most its own; the session keeps the rest.

A connection does not become modern by a client's probe: clients send ``server/discover`` first and fall back to
``initialize`` when the server answers with an error. The session fixes the era when an answer succeeds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from attestd.errors import Cause
from attestd.wire.lookalike import META, META_CLIENT, META_REVISION
from attestd.wire.methods import REVISIONS, UNSUPPORTED_REVISION, revision_of
from attestd.wire.model import Era, Json, Message, WireError

_NAME_CHARACTERS: Final = 128


def era_of(message: Message) -> Era:
    """modern: it declares a revision in ``_meta``, or is server/discover. legacy: initialize. Otherwise unknown."""
    meta = message.params.get(META)
    if type(meta) is dict and META_REVISION in meta:
        return Era.MODERN
    match message.method:
        case "server/discover":
            return Era.MODERN
        case "initialize" | "notifications/initialized":
            return Era.LEGACY
        case _:
            return Era.UNKNOWN


def declared_revision(message: Message) -> str | None:
    """The protocol version that the message states, as it states it: in ``_meta``, or in the params of initialize."""
    meta = message.params.get(META)
    declared = meta.get(META_REVISION) if type(meta) is dict else None
    if declared is None and message.method == "initialize":
        declared = message.params.get("protocolVersion")
    return declared if type(declared) is str else None


def demand_modern_revision(message: Message) -> str | None:
    """The revision of a modern message, or None if it declares none.

    Raises:
        WireError: It declares another than our modern one: -32022 with the supported ones, as specified.
    """
    meta = message.params.get(META)
    if type(meta) is not dict or META_REVISION not in meta:
        return None
    declared = meta[META_REVISION]
    revision = revision_of(declared)
    if revision is None or revision != REVISIONS[-1]:
        raise unsupported(message, declared)
    return revision


def unsupported(message: Message, declared: object) -> WireError:
    """What says that only our modern revision can follow: -32022 with it, as specified.

    Also for ``initialize`` after a modern answer: a client whose server/discover was answered later than it cared to
    wait, and that falls back now, learns from it that it need not.
    """
    shown = declared[:32] if type(declared) is str else "no text"
    return WireError(
        Cause.UNKNOWN_METHOD,
        f"cannot accept protocol version {shown!a}: expected {REVISIONS[-1]}",
        request_id=message.id,
        rpc_code=UNSUPPORTED_REVISION,
        data={"supported": [REVISIONS[-1]], "requested": shown},
    )


def client_name(message: Message) -> str | None:
    """Name and version in clientInfo, as claimed; see ``claimed``."""
    info: Any = message.params.get("clientInfo")
    meta = message.params.get(META)
    if info is None and type(meta) is dict:
        info = meta.get(META_CLIENT)
    return claimed(info)


def claimed(info: Json) -> str | None:
    """Name and version of a clientInfo, without anything that a terminal might obey; None if it is none."""
    if type(info) is not dict:
        return None
    name, version = info.get("name"), info.get("version")
    if type(name) is not str:
        return None
    return _shown(name[:_NAME_CHARACTERS], version[:_NAME_CHARACTERS] if type(version) is str else None)


@lru_cache(64)
def _shown(name: str, version: str | None) -> str | None:
    """The same few come with every message."""
    text = (name if version is None else f"{name} {version}")[:_NAME_CHARACTERS]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "?" for char in text)
    return text or None
