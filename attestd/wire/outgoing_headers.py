"""The MCP headers of a request to an HTTP back end, computed from its body and from nothing else.

Headers of a client are never passed on: they are checked at the front, and made anew here. So what a back end routes
on is what was decided on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from attestd.wire.lookalike import META, META_REVISION
from attestd.wire.repeated import NAMED, Annotations, argument_text, encoded

NAME_CHARACTERS: Final = 128
"""The longest name whose headers are remembered."""


def modern_revision(body: Mapping[str, Any]) -> str | None:
    """The revision that a message of the modern era declares; None: it is of the legacy era, or a response."""
    params = body.get("params")
    meta = params.get(META) if isinstance(params, dict) else None
    declared = meta.get(META_REVISION) if isinstance(meta, dict) else None
    return declared if isinstance(declared, str) else None


def modern_headers(body: Mapping[str, Any], revision: str, annotations: Annotations) -> list[tuple[str, str]]:
    """MCP-Protocol-Version, Mcp-Method, Mcp-Name and Mcp-Param-* of one request of the modern era."""
    method, params = str(body.get("method")), body.get("params")
    params = params if isinstance(params, dict) else {}
    name = params.get(NAMED[method]) if method in NAMED else None
    name = name if isinstance(name, str) else None
    routing = _routing if name is not None and len(name) > NAME_CHARACTERS else _remembered
    headers = [*routing(revision, method, name)]
    if annotations and method == "tools/call":
        for path, token in annotations.items():
            text = argument_text(params, path)
            if text is not None:
                headers.append((f"Mcp-Param-{token}", encoded(text)))
    return headers


def _routing(revision: str, method: str, name: str | None) -> tuple[tuple[str, str], ...]:
    headers = (("MCP-Protocol-Version", encoded(revision)), ("Mcp-Method", encoded(method)))
    return headers if name is None else (*headers, ("Mcp-Name", encoded(name)))


_remembered: Final = lru_cache(256)(_routing)
"""The same few come again and again."""
