"""Keys that some reader would take for a known key although they are another.

Readers differ: Go matches keys without regard to case, U+017F and U+212A included; others cut keys at NUL or strip
space; the Python SDK fills ``request_id`` where ``requestId`` is meant; some HTTP stacks decode UTF-7 if told to. A
message may therefore not hold, at a level that decides where it goes, a key that *folds* to a known one without being
it. Folding keeps the letters and digits of the NFKC form, case folded, of the key and of its reading as UTF-7. That a
whole message is not read as UTF-7 is for the fronts and backs: they state no charset. The arguments of a tool are none
of our business and may hold any key.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from attestd.errors import Cause
from attestd.wire.model import Json, WireError

META: Final = "_meta"
META_REVISION: Final = "io.modelcontextprotocol/protocolVersion"
META_CLIENT: Final = "io.modelcontextprotocol/clientInfo"
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
META_TASK: Final = "io.modelcontextprotocol/related-task"

_FOREIGN_MAX: Final = 256
"""Keys beyond the known ones that one routing level may hold; each costs about a microsecond."""


_REMEMBERED: Final = 1024
_SHORT: Final = 64
"""Characters of a key that is remembered: the same few come with every message."""


def fold(key: str) -> str:
    """What a lenient reader may see in a key."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", key).casefold()))


def _utf7(key: str) -> str:
    """The key as a reader of UTF-7 sees it; the empty string if it is none."""
    try:
        return key.encode("ascii").decode("utf-7")
    except UnicodeError:
        return ""


def _folds(key: str) -> tuple[str, str]:
    return fold(key), fold(_utf7(key)) if "+" in key else ""


_short_folds: Final = lru_cache(_REMEMBERED)(_folds)


class Level:
    """The known keys of one level of a message."""

    def __init__(self, *keys: str) -> None:
        """Args: keys: the keys as the specification spells them."""
        self.known = frozenset(keys)
        self._folded = {fold(key): key for key in keys}

    def demand(self, where: str, value: Mapping[str, Json], request_id: str | int | None) -> None:
        """Refuse a look-alike.

        Raises:
            WireError: MALFORMED, naming the key and what it looks like.
        """
        foreign = value.keys() - self.known
        if not foreign:
            return
        if len(foreign) > _FOREIGN_MAX:
            message = f"cannot accept {where}: it holds {len(foreign)} unknown keys, expected at most {_FOREIGN_MAX}"
            raise WireError(Cause.MALFORMED, message, request_id=request_id)
        for key in foreign:
            plain, utf7 = _short_folds(key) if len(key) <= _SHORT else _folds(key)
            known = self._folded.get(plain) or self._folded.get(utf7)
            if known:
                message = f"cannot accept key {key[:64]!a} in {where}: it looks like {known!a} but is not"
                raise WireError(Cause.MALFORMED, message, request_id=request_id)


ENVELOPE: Final = Level("jsonrpc", "id", "method", "params", "result", "error")
PARAMS: Final = Level(
    META,
    "argument",
    "arguments",
    "capabilities",
    "clientInfo",
    "context",
    "cursor",
    "inputResponses",
    "level",
    "name",
    "notifications",
    "progress",
    "progressToken",
    "protocolVersion",
    "reason",
    "ref",
    "requestId",
    "requestState",
    "task",
    "taskId",
    "uri",
)
PARAMS_META: Final = Level(
    META_REVISION,
    META_CLIENT,
    META_SUBSCRIPTION,
    META_TASK,
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/logLevel",
    "progressToken",
)
REF: Final = Level("type", "name", "uri", "title")
NOTIFICATIONS: Final = Level(
    "toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"
)
RELATED_TASK: Final = Level("taskId")
RESULT: Final = Level(
    META, "resultType", "inputRequests", "requestState", "task", "taskId", "protocolVersion", "capabilities"
)


def demand_exact_keys(params: Mapping[str, Json], request_id: str | int | None) -> None:
    """Refuse look-alikes at every level of params that decides where the message goes.

    Raises:
        WireError: MALFORMED.
    """
    keys = params.keys()
    if keys <= _FLAT:
        return
    if keys <= _STATING:
        meta = params[META]
        if type(meta) is not dict or meta.keys() <= STATEMENTS:
            return
    PARAMS.demand("params", params, request_id)
    for key, level in _NESTED:
        value = params.get(key)
        if type(value) is dict:
            level.demand(f"params.{key}", value, request_id)
    meta = params.get(META)
    if type(meta) is dict and type(meta.get(META_TASK)) is dict:
        RELATED_TASK.demand("the related task", meta[META_TASK], request_id)


_FLAT: Final = PARAMS.known - {META, "ref", "notifications"}
"""Known keys with nothing below them that decides where the message goes."""
_STATING: Final = _FLAT | {META}
STATEMENTS: Final = PARAMS_META.known - {META_TASK}
"""What every message of a modern client says about itself in ``_meta``; likewise."""
_NESTED: Final = ((META, PARAMS_META), ("ref", REF), ("notifications", NOTIFICATIONS))
