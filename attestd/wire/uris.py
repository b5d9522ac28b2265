"""One spelling for every resource, so that a rule about a URI cannot be met by another spelling of it.

Canonical is: scheme and host in lower case; escapes of unreserved characters decoded, the other escapes in upper
case; characters that a URI may not hold escaped; ``file:/x`` and ``file://localhost/x`` written as ``file:///x``.

Readers disagree about the rest, and the server gets the spelling of the client, so the rest is refused and not
repaired: control, format and separator characters, backslashes, broken escapes, escapes that are not UTF-8 or hide a
control character, dot segments anywhere (plain, escaped, or escaped several times), ports, users or hosts that read
two ways, and in ``file:`` empty segments and queries. A removed dot segment would also lie about symbolic links: the
server walks what was written.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NoReturn
from urllib.parse import quote, unquote_to_bytes

from attestd.errors import Cause
from attestd.wire.model import WireError

INVALID_PARAMS: Final = -32602
MAX_CHARACTERS: Final = 8192

_PARTS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_AUTHORITY: Final = re.compile(r"(?:([^@\[\]]*)@)?([A-Za-z0-9._~!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_SPLIT: Final = re.compile(r"[:/\\?#&=;]")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEEP: Final = "%:/?#[]@!$&'()*+,;=-._~"
_REFUSED: Final = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})
_ROUNDS: Final = 4
"""Times that a chain of readers may decode one escape."""


def canonical(uri: object, request_id: str | int | None = None) -> str:
    """The one spelling of a URI.

    Args:
        uri: What the message holds.
        request_id: Of the message, for the answer.

    Returns:
        ASCII text.

    Raises:
        WireError: MALFORMED with -32602: not a URI, or one that readers may take for different things.
    """
    if type(uri) is not str or not 0 < len(uri) <= MAX_CHARACTERS:
        _refuse(f"it is not text of 1 to {MAX_CHARACTERS} characters", request_id)
    _demand_plain(uri, request_id)
    match = _PARTS.fullmatch(uri)
    if match is None:
        _refuse("it has no scheme", request_id)
    scheme, authority, path, query, fragment = match.groups()
    scheme = scheme.lower()
    host = None if authority is None else _authority(authority, request_id)
    if scheme == "file":
        host = _file(host, path, query or fragment, request_id)
    prefix = f"{scheme}:" if host is None else f"{scheme}://{host}"
    return prefix + _escape(path) + _escape(query or "") + _escape(fragment or "")


def template(uri: object, request_id: str | int | None = None) -> str:
    """The one spelling of a URI template: its scheme in lower case, the rest as written, for variables have a case.

    Raises:
        WireError: MALFORMED with -32602, for the same characters, escapes and dot segments as in ``canonical``.
    """
    if type(uri) is not str or not 0 < len(uri) <= MAX_CHARACTERS:
        _refuse(f"it is not text of 1 to {MAX_CHARACTERS} characters", request_id)
    _demand_plain(uri, request_id)
    scheme, colon, rest = uri.partition(":")
    if not colon or _SCHEME.fullmatch(scheme) is None:
        _refuse("it has no scheme", request_id)
    return f"{scheme.lower()}:{rest}"


def is_template(uri: object) -> bool:
    """Whether a value is a URI template rather than a URI: it has a variable."""
    return type(uri) is str and "{" in uri


def _demand_plain(uri: str, request_id: str | int | None) -> None:
    text = uri
    for _ in range(_ROUNDS):
        if "\\" in text or (not (text.isascii() and text.isprintable()) and _has_refused(text)):
            _refuse("it has a control character, an odd space or a backslash, plain or escaped", request_id)
        if any(part in {".", ".."} for part in _SPLIT.split(text)):
            _refuse("it has a dot segment", request_id)
        if "%" not in text:
            break
        text = _decoded(uri, request_id) if text is uri else unquote_to_bytes(text).decode("utf-8", "replace")
    else:
        if any(match.group(1) for match in _ESCAPE.finditer(text)):
            _refuse("it is escaped too many times", request_id)
    if uri != uri.strip():
        _refuse("it begins or ends with a space", request_id)


def _decoded(text: str, request_id: str | int | None) -> str:
    if any(match.group(1) is None for match in _ESCAPE.finditer(text)):
        _refuse("it has a broken escape", request_id)
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        _refuse("an escape is not UTF-8", request_id)


def _has_refused(text: str) -> bool:
    return any(unicodedata.category(char) in _REFUSED or (char.isspace() and char != " ") for char in text)


def _authority(text: str, request_id: str | int | None) -> str:
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        _refuse("its host reads two ways", request_id)
    user, host, port = match.groups()
    return ("" if user is None else _escape(user) + "@") + str(host).lower() + (port or "")


def _file(host: str | None, path: str, rest: str | None, request_id: str | int | None) -> str:
    if rest is not None:
        _refuse("a file has no query and no fragment", request_id)
    if not path.startswith("/") or "//" in path:
        _refuse("the path of a file is absolute and has no empty segment", request_id)
    if "%2f" in path.lower():
        _refuse("the path of a file has an escaped slash", request_id)
    return "" if host in {None, "localhost"} else str(host)


def _escape(text: str) -> str:
    return quote(_ESCAPE.sub(_normal, text), safe=_KEEP)


def _normal(match: re.Match[str]) -> str:
    char = chr(int(match.group(1), 16))
    return char if char in _UNRESERVED else match.group(0).upper()


def _refuse(reason: str, request_id: str | int | None) -> NoReturn:
    message = f"cannot accept the uri: {reason}"
    raise WireError(Cause.MALFORMED, message, request_id=request_id, rpc_code=INVALID_PARAMS)
