"""HTTP/1.1 with a server: requests as bytes, and bytes of a stream as heads and content. Sans-I/O, and strict.

1. llhttp (``httptools``) parses heads, its lenient modes off, and sees each head alone; where content ends is decided
   here. So no byte behind an answer is ever parsed as a part of it, and none of it as the next answer.
2. What llhttp would let pass is refused here: a length beside chunks, a length that is not one number, a transfer
   coding besides ``chunked``, a content coding, another version than HTTP/1.1 and 1.0, a switch of protocols.
3. A line of chunk framing, an extension and a trailer are bounded, and checked though nobody reads them.
4. Content is given out as it came, never collected.
5. A request whose method, target or header could end its line is not written.
6. The same bytes mean the same, and the same words are said alike: a head that a connection has had before is neither
   parsed nor checked and written again. A few are remembered, and none beyond its connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import httptools

from attestd.wire.known import KnownHeads

HEAD_BYTES: Final = 64 * 1024
"""Largest head of an answer, and all of its trailers together."""
LINE_BYTES: Final = 4096
"""Largest line of its chunk framing."""
_FIRST: Final = b"HTTP/1."
_END: Final = b"\r\n\r\n"
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[\t\x20-\x7e\x80-\xff]*)?\Z")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\Z")
_NUMBER: Final = re.compile(r"[0-9]{1,18}\Z")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE: Final = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?\Z")
_TARGET: Final = re.compile(r"[\x21-\x7e]+\Z")
_CONTENTLESS: Final = frozenset({204, 304})

Headers = dict[str, list[str]]
"""By lower-case name, every value in order."""


class AnswerError(Exception):
    """An answer that cannot be read, or a request that cannot be said. The connection is of no use afterwards."""


class RequestWriter:
    """The requests of one connection as bytes."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: KnownHeads[tuple[object, ...], bytes] = KnownHeads()

    def request(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
        """One request. Raises AnswerError if it cannot be said in HTTP."""
        key = (method, target, len(body), *headers)
        head = self._known.get(key)
        if head is None:
            head = _written(method, target, headers, len(body))
            self._known.keep(key, head, len(head))
        return head + body


def _written(method: str, target: str, headers: Sequence[tuple[str, str]], length: int) -> bytes:
    if not _NAME.match(method) or not _TARGET.match(target):
        raise AnswerError(f"a method {method[:16]!a} or target {target[:64]!a}")
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers:
        if not _NAME.match(name) or not _VALUE.match(value):
            raise AnswerError(f"a header {name[:64]!a}, or its value")
        lines.append(f"{name}: {value}")
    if length:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class AnswerHead:
    """Status and headers of an answer."""

    __slots__ = ("_headers", "keeps", "media", "status")

    def __init__(self, status: int, headers: Headers, *, keeps: bool) -> None:
        self.status = status
        self._headers = headers
        self.keeps = keeps
        """Whether the connection may carry another answer."""
        self.media = (self.header("content-type") or "").partition(";")[0].strip().lower()
        """The media type without its parameters, in lower case."""

    def header(self, name: str) -> str | None:
        """The value of a header that may stand once; None if it is missing or stands twice with different values."""
        values = set(self._headers.get(name, ()))
        return values.pop() if len(values) == 1 else None


class _Sink:
    """What llhttp tells of one head."""

    __slots__ = ("done", "headers")

    def __init__(self) -> None:
        self.headers: Headers = {}
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("ascii").lower()
        self.headers.setdefault(key, []).append(value.decode("latin-1").strip(" \t"))

    def on_headers_complete(self) -> None:
        self.done = True


class AnswerReader:
    """One answer of the stream of one connection."""

    __slots__ = (
        "_buffer",
        "_chunked",
        "_ended",
        "_in_chunk",
        "_known",
        "_last",
        "_left",
        "_over",
        "_searched",
        "_trailing",
        "complete",
    )

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._ended = False
        self._chunked = False
        self._in_chunk = False
        self._last = False
        self._over = False
        self._trailing = 0
        self._left: int | None = 0
        self._known: KnownHeads[bytes, tuple[AnswerHead, bool, int | None]] = KnownHeads()
        """What heads said: with each whether its content comes in chunks, and otherwise how long it is."""
        self.complete = True
        """All of the answer was taken."""

    @property
    def buffered(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._buffer)

    def begin(self) -> None:
        """The next answer is waited for."""
        self.complete = False

    def feed(self, data: bytes) -> int:
        """Take the next bytes of the stream; how many wait now."""
        self._buffer += data
        return len(self._buffer)

    def end(self) -> None:
        """The server says no more."""
        self._ended = True

    def head(self) -> AnswerHead | None:
        """The head of the final answer; None: more bytes are needed. Raises AnswerError."""
        while self._buffer:
            found = self._buffer.find(_END, max(0, self._searched - 3))
            if found < 0 or found > HEAD_BYTES:
                self._demand_head()
                self._searched = len(self._buffer)
                return None
            raw = bytes(self._buffer[: found + 4])
            del self._buffer[: found + 4]
            self._searched = 0
            known = self._known.get(raw)
            if known is None:
                known = self._parsed(raw)
                self._known.keep(raw, known, len(raw))
            head, self._chunked, self._left = known
            self._in_chunk = self._last = self._over = False
            self._trailing = 0
            if head.status >= 200:
                return head
            if head.status == 101:
                raise AnswerError("it switched to another protocol")
        return None

    def content(self) -> bytes | None:
        """Some of the content, empty at its end; None: more bytes are needed. Raises AnswerError."""
        if self.complete:
            return b""
        if self._chunked:
            return self._chunks()
        if self._left is None:
            data = self._taken(len(self._buffer))
            self.complete = not data and self._ended
            return data if data or self.complete else None
        if self._left == 0:
            self.complete = True
            return b""
        data = self._taken(min(self._left, len(self._buffer)))
        self._left -= len(data)
        return data or None

    def bounded(self, limit: int) -> bool:
        """Whether the head says how long the content is, and that is at most ``limit`` bytes."""
        return not self._chunked and self._left is not None and self._left <= limit

    def whole(self) -> bytes | None:
        """All of a bounded content at once; None: more bytes are needed."""
        left = self._left or 0
        if len(self._buffer) < left:
            return None
        self._left, self.complete = 0, True
        return self._taken(left)

    # -- the head ---------------------------------------------------------------------------------------------------

    def _demand_head(self) -> None:
        """What has come of a head so far may become one."""
        if len(self._buffer) > HEAD_BYTES:
            raise AnswerError(f"its head is above {HEAD_BYTES} bytes")
        new = self._buffer[max(0, self._searched - 1) :]
        if new.count(b"\n") != new.count(b"\r\n") + new.startswith(b"\n"):
            raise AnswerError("a line ends without CR")
        if not _FIRST.startswith(self._buffer[: len(_FIRST)]):
            raise AnswerError("its first line is not HTTP")

    @staticmethod
    def _parsed(raw: bytes) -> tuple[AnswerHead, bool, int | None]:
        if not raw.startswith(_FIRST):
            raise AnswerError("its first line is not HTTP")
        sink = _Sink()
        parser = httptools.HttpResponseParser(sink)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            raise AnswerError("it switched to another protocol") from None
        except httptools.HttpParserError as error:
            raise AnswerError(str(error).lower()[:80]) from None
        if not sink.done:
            raise AnswerError("its head is not whole")
        status, version = parser.get_status_code(), parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise AnswerError(f"it is HTTP/{version[:8]}")
        if not 100 <= status <= 599:
            raise AnswerError(f"its status is {status}")
        chunked, left = _frame(status, version, sink.headers)
        keeps = version == "1.1" and (chunked or left is not None)
        if "connection" in sink.headers:
            words = {word.strip().lower() for value in sink.headers["connection"] for word in value.split(",")}
            keeps = keeps and "close" not in words
        return AnswerHead(status, sink.headers, keeps=keeps), chunked, left

    # -- content ----------------------------------------------------------------------------------------------------

    def _taken(self, size: int) -> bytes:
        if size == len(self._buffer):
            data, self._buffer = bytes(self._buffer), bytearray()
            return data
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _chunks(self) -> bytes | None:
        """What has come of the chunks; None: nothing has."""
        found: list[bytes] = []
        while not self._over:
            left = self._left or 0
            if left and self._buffer:
                found.append(self._taken(min(left, len(self._buffer))))
                self._left = left - len(found[-1])
            elif left or (line := self._line()) is None:
                break
            else:
                self._framing(line)
        if found:
            return b"".join(found)
        self.complete = self._over  # the end is told by itself
        return b"" if self.complete else None

    def _framing(self, line: bytes) -> None:
        """One line between chunks, or after the last one."""
        if self._last:
            self._trailing += len(line) + 2
            if not line:
                self._over = True
            elif not _TRAILER.match(line) or self._trailing > HEAD_BYTES:
                raise AnswerError("what follows its last chunk is no trailer, or too much")
        elif self._in_chunk:
            if line:
                raise AnswerError("a chunk is longer than it says")
            self._in_chunk = False
        else:
            size = _CHUNK.match(line)
            if size is None:
                raise AnswerError("a chunk does not begin with its length")
            self._left = int(size[1], 16)
            self._in_chunk, self._last = self._left > 0, self._left == 0

    def _line(self) -> bytes | None:
        """The next line of the framing; None: it has not come to its end."""
        found = self._buffer.find(b"\n", 0, LINE_BYTES)
        if found < 0:
            if len(self._buffer) >= LINE_BYTES:
                raise AnswerError(f"a line of its chunk framing is above {LINE_BYTES} bytes")
            return None
        if not found or self._buffer[found - 1] != 13:
            raise AnswerError("a line ends without CR")
        line = bytes(self._buffer[: found - 1])
        del self._buffer[: found + 1]
        return line


def _frame(status: int, version: str, headers: Headers) -> tuple[bool, int | None]:
    """Where the content ends: whether it comes in chunks, and else its length (None: with the stream)."""
    codings, lengths = headers.get("transfer-encoding"), headers.get("content-length")
    for encoding in headers.get("content-encoding", ()):
        if encoding.lower() != "identity":
            raise AnswerError(f"its content is encoded ({encoding[:32]!a}), which was not asked for")
    if codings is not None and lengths is not None:
        raise AnswerError("it has a length beside chunks")
    if codings is not None and ([value.lower() for value in codings] != ["chunked"] or version == "1.0"):
        raise AnswerError(f"its transfer coding is {', '.join(codings)[:32]!a}")
    if lengths is not None and (len(set(lengths)) > 1 or not _NUMBER.match(lengths[0])):
        raise AnswerError("its length is not one number")
    if status < 200 or status in _CONTENTLESS:
        return False, 0
    if codings is not None:
        return True, 0
    return False, None if lengths is None else int(lengths[0])
