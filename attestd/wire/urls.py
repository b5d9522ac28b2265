"""The address of an HTTP back end, read strictly, and what counts as the same origin.

Printable ASCII only; no user name, no fragment, no backslash. What cannot be read in exactly one way is refused:
parsers that disagree about a URL send a secret to a place that nobody checked.
"""

from __future__ import annotations

import ipaddress
import re
from functools import cached_property
from typing import Final
from urllib.parse import urljoin

import msgspec

from attestd.errors import AttestdError

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}))"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<target>(?:/[!-~]*|\?[!-~]*)?)\Z"
)
_DEFAULT: Final = {"http": 80, "https": 443}
_LENGTH: Final = 2048


class UrlError(AttestdError):
    """A text is not the address of an HTTP server as attestd accepts it."""

    code = "url"


class Url(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Where to connect and what to ask for there."""

    scheme: str
    """http | https"""
    host: str
    """Lower-case name, or an address without brackets."""
    port: int
    target: str
    """Path and query; begins with a slash."""

    @cached_property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT[self.scheme] else f"{host}:{self.port}"

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port

    @property
    def text(self) -> str:
        """In one line."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def loopback(self) -> bool:
        """Whether the host can be nothing but this machine: a loopback address, or ``localhost``, never looked up."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_url(text: str) -> Url:
    """Read one absolute URL.

    Raises:
        UrlError: It is none, or not one that is read in one way only.
    """
    found = _URL.match(text) if len(text) <= _LENGTH else None
    if found is None or "#" in text or "\\" in text:
        raise UrlError(f"cannot use the url {text[:80]!a}: expected http(s)://host[:port]/path, printable, no fragment")
    host = found["host"].lower()
    if host.startswith("["):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise UrlError(f"cannot use the url {text[:80]!a}: {host} is not an IPv6 address") from error
    elif re.fullmatch(r"[0-9.]+|0x[0-9a-f]*", host):
        try:  # octal, short and hexadecimal forms are read differently by different readers
            ipaddress.IPv4Address(host)
        except ValueError as error:
            raise UrlError(f"cannot use the url {text[:80]!a}: {host} is not an IPv4 address") from error
    port = int(found["port"]) if found["port"] else _DEFAULT[found["scheme"]]
    if not 0 < port < 65536:
        raise UrlError(f"cannot use the url {text[:80]!a}: expected a port from 1 to 65535")
    target = found["target"]
    return Url(scheme=found["scheme"], host=host, port=port, target=target if target[:1] == "/" else f"/{target}")


def within_origin(base: Url, location: str) -> Url:
    """The place that a server points to, if it is of the server's own origin.

    Args:
        base: Where the answer came from.
        location: An absolute or relative reference.

    Raises:
        UrlError: It is another origin, or not a URL.
    """
    if not location.isascii() or not location.isprintable() or "\\" in location or len(location) > _LENGTH:
        raise UrlError(f"cannot follow {location[:80]!a}: it is not a url")
    try:
        joined = urljoin(base.text, location.partition("#")[0])
    except ValueError as error:
        raise UrlError(f"cannot follow {location[:80]!a}: it is not a url") from error
    found = parse_url(joined)
    if found.origin != base.origin:
        raise UrlError(f"cannot follow {found.text[:200]}: it is another origin than {base.scheme}://{base.authority}")
    return found
