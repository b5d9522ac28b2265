"""What attestd replaces on the wire: a proxy that judges each line by its own reading and forwards the bytes untouched.

The rows W* use it to show that an attack works without the control. The server behind it is the real one, as a
process of its own. The judge is as good as those of real proxies: it finds the calls that it can read and refuses the
tools that are not allowed; what it cannot read is not a call to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.support.instance import Client

Reader = Callable[[bytes], Any]
"""One line as the proxy understands it; ValueError if it does not."""


def first_wins(line: bytes) -> Any:
    """JSON as parsers read it that take the first of two equal keys."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(reversed(items))

    return json.loads(line, object_pairs_hook=pairs)


def no_responses(line: bytes) -> Any:
    """JSON, where what has a result is a response and so no call."""
    message = json.loads(line)
    return {} if isinstance(message, dict) and "result" in message else message


def by_bytes(line: bytes) -> Any:
    """No JSON at all: looks for the words."""
    if b'"tools/call"' in line and b'"method"' in line:
        return json.loads(line)
    return {}


class NaiveProxy(Client):
    """One proxied server; a client of it, too: what the server answers can be received."""

    def __init__(self, process: subprocess.Popen[bytes], allowed: Sequence[str], reads: Reader) -> None:
        super().__init__(process)
        self._allowed = allowed
        self._reads = reads

    def offer(self, line: bytes) -> bool:
        """Forward the line unless it is seen to call a tool that is not allowed; whether it was forwarded."""
        with contextlib.suppress(ValueError):
            message = self._reads(line)
            if isinstance(message, dict) and message.get("method") == "tools/call":
                params = message.get("params")
                if not isinstance(params, dict) or params.get("name") not in self._allowed:
                    return False
        self.send_line(line)
        return True


@contextlib.contextmanager
def proxied(
    command: Sequence[str], *allowed: str, reads: Reader = json.loads, hello: bool = True
) -> Iterator[NaiveProxy]:
    """A started proxy, by default after the legacy handshake."""
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}
    process = subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    proxy = NaiveProxy(process, allowed, reads)
    try:
        if hello:
            assert "result" in proxy.initialize()
        yield proxy
    finally:
        proxy.close()
