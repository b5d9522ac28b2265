"""What a server file may say about an HTTP back end, beyond what its types say.

Cleartext goes to this machine only. A remote server is known by its certificate and a local one by its process, so each
has its own keys. Headers that say who talks or how the message is framed are not the operator's to set.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attestd.wire.urls import UrlError, parse_url

if TYPE_CHECKING:
    from attestd.daemon.config import ServerSettings

Rule = tuple[bool, str, object, str]
"""Whether it is broken, the key, what was found, what is expected."""
HEADER_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}\Z")
TAKEN: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "origin",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Besides everything that begins with ``content-``, ``mcp-``, ``proxy-`` or ``x-forwarded-``."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")


def http_rules(server: ServerSettings) -> tuple[Rule, ...]:
    """The rules of a server with, or wrongly without, an address."""
    secrets = {"token_file": server.token_file, "ca_file": server.ca_file, **server.header_files}
    digest = server.peer.program
    common: tuple[Rule, ...] = (
        (digest is not None and not _DIGEST.match(digest), "peer.program", digest, "64 lower-case hex digits"),
    )
    if server.transport not in ("http", "sse"):
        return (
            *common,
            (bool(server.url), "url", server.url, "no url for this transport"),
            (any(secrets.values()), "token_file", "a file", "no token, header or ca file for this transport"),
        )
    try:
        url = parse_url(server.url)
    except UrlError as error:
        return ((True, "url", server.url, error.message.partition("expected ")[2] or error.message),)
    own = [name for name in server.header_files if not HEADER_NAME.match(name) or _taken(name)]
    peer = server.peer.uid is not None or server.peer.exe_sha256 is not None or digest is not None
    local = bool(server.socket) or url.loopback
    return (
        *common,
        (
            url.scheme == "http" and not local,
            "url",
            server.url,
            "https, or http to 127.0.0.1, [::1], localhost or a socket",
        ),
        (
            bool(server.socket) and url.scheme == "https",
            "url",
            server.url,
            "http with a socket: the socket's listener is attested",
        ),
        (bool(server.command), "command", list(server.command), "no command: attestd does not start it"),
        (bool(server.env), "env", sorted(server.env), "no env: attestd does not start it"),
        (bool(server.socket) and not server.socket.startswith("/"), "socket", server.socket, "an absolute path"),
        (bool(own), "header_files", own, "header names that neither frame nor identify the message"),
        (
            any(value and not value.startswith("/") for value in secrets.values()),
            "token_file",
            "a relative path",
            "absolute paths for token, header and ca files",
        ),
        (bool(server.ca_file) and url.scheme == "http", "ca_file", server.ca_file, "no ca_file without https"),
        (peer and not local, "peer", "a process", "no peer: a remote server is known by its certificate"),
    )


def _taken(name: str) -> bool:
    lower = name.lower()
    return lower in TAKEN or lower.startswith(("content-", "mcp-", "proxy-", "x-forwarded-"))
