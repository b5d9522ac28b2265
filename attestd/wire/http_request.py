"""HTTP/1.1 requests of a client: bytes of a stream in, whole requests out. Sans-I/O, and strict.

1. llhttp (``httptools``) parses; its lenient modes stay off. The head is given to it alone, so that it is known at
   which offset of the stream a request begins: that decides whether it is older than the attestation.
2. What llhttp would let pass is refused here: another version than HTTP/1.1, anything but exactly one ``Host``, a
   target that is not a plain path, a transfer coding besides ``chunked``, trailers, a content coding, and bytes that
   follow a chunked request without waiting for its answer.
3. An offer to upgrade is not taken up, as RFC 9110 allows.
4. Heads and bodies are bounded; a body that announces too much is refused before it is read.
5. The same bytes mean the same: a head that a connection has sent before, as with most calls of one tool, is not parsed
   again. A few are remembered, and none beyond its connection.
"""

from __future__ import annotations

import re
from typing import Any, Final

import httptools
import msgspec

from attestd.wire.known import KnownHeads

HEAD_BYTES: Final = 32 * 1024
"""Largest request line with headers."""
CONTINUE: Final = "continue"
"""The client waits to be told that it may send the body (``Expect: 100-continue``)."""
_END: Final = b"\r\n\r\n"
_TARGET_BYTES: Final = 2048
_TARGET: Final = re.compile(rb"/(?!/)[^#\s]*\Z")
_NUMBER: Final = re.compile(r"[0-9]{1,19}\Z")


class HttpRefusal(Exception):  # noqa: N818 - what it leads to, not what went wrong
    """A request that cannot be read. The connection is of no use afterwards."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class RequestHead(msgspec.Struct, kw_only=True):
    """What a head says. Requests of one connection with the same head share it."""

    method: str
    path: str
    query: str
    headers: dict[str, tuple[str, ...]]
    """By lower-case name, every value in order."""
    length: int | None
    """Of the body; None: it comes in chunks."""
    expects: bool = False
    """See ``CONTINUE``."""
    closes: bool = False
    """The client will not send another one."""
    found: Any = None
    """What the reader's owner concluded from it, if that is worth keeping; nothing else of it ever changes."""

    def header(self, name: str) -> str | None:
        """The value of a header that may stand only once; None if it is missing.

        Raises:
            HttpRefusal: It is there twice.
        """
        values = self.headers.get(name, ())
        if len(values) > 1:
            raise HttpRefusal(400, f"cannot accept the request: header {name} is there {len(values)} times")
        return values[0] if values else None


class HttpRequest(msgspec.Struct, frozen=True):
    """One whole request."""

    head: RequestHead
    body: bytes
    start: int
    """Offset in the client's stream of its first byte."""
    end: int
    """Offset after its last."""


class _Sink:
    """What llhttp tells."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, tuple[str, ...]] = {}
        self.body = bytearray()
        self.head_done = False
        self.done = False
        self.trailing = False

    def on_url(self, data: bytes) -> None:
        self.url += data

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_done:
            self.trailing = True
            return
        key, text = name.decode("ascii").lower(), value.decode("latin-1").strip(" \t")
        self.headers[key] = (*self.headers[key], text) if key in self.headers else (text,)

    def on_headers_complete(self) -> None:
        self.head_done = True

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_begin(self) -> None:
        self.trailing = self.trailing or self.done

    def on_message_complete(self) -> None:
        self.done = True


class RequestReader:
    """Cuts the stream of one connection into requests."""

    def __init__(self, body_bytes: int) -> None:
        """``body_bytes``: the largest body."""
        self._limit = body_bytes
        self._buffer = bytearray()
        self._received = 0
        self._searched = 0
        self._start = 0
        self._head: RequestHead | None = None
        """Of the request that is being read."""
        self._known: KnownHeads[bytes, RequestHead] = KnownHeads()
        self._chunks: tuple[httptools.HttpRequestParser, _Sink] | None = None
        """What a body that comes in chunks is read with."""
        self._asked = False

    @property
    def buffered(self) -> int:
        """Bytes that wait."""
        return len(self._buffer)

    @property
    def idle(self) -> bool:
        """Whether the stream stands between two requests."""
        return self._head is None and not self._buffer

    def feed(self, data: bytes) -> bool:
        """Take the next bytes of the stream; whether they begin a request."""
        begins = self._head is None and not self._buffer
        self._buffer += data
        self._received += len(data)
        return begins

    def next(self) -> HttpRequest | str | None:
        """The next request, ``CONTINUE``, or None: more bytes are needed. Raises HttpRefusal."""
        head = self._head
        if head is None and (head := self._begun()) is None:
            return None
        body = self._chunked() if head.length is None else self._counted(head.length)
        if body is None:
            if head.expects and not self._asked and not self._buffer:
                self._asked = True
                return CONTINUE
            return None
        self._head = self._chunks = None
        self._searched = 0
        self._asked = False
        return HttpRequest(head, body, self._start, self._received - len(self._buffer))

    def _begun(self) -> RequestHead | None:
        """The next head, if all of it is there."""
        found = self._buffer.find(_END, max(0, self._searched - 3))
        self._searched = len(self._buffer)
        if found < 0 or found > HEAD_BYTES:
            if len(self._buffer) > HEAD_BYTES:
                raise HttpRefusal(431, f"cannot accept the request: its head is above {HEAD_BYTES} bytes")
            return None
        self._start = self._received - len(self._buffer)
        raw = bytes(self._buffer[: found + 4])
        del self._buffer[: found + 4]
        self._head = head = self._known.get(raw) or self._parsed(raw)
        return head

    def _parsed(self, raw: bytes) -> RequestHead:
        if not 65 <= raw[0] <= 90 or raw.partition(b"\r\n")[0].count(b" ") != 2:
            raise HttpRefusal(400, "cannot accept the request: its first line is not method, target and version")
        sink = _Sink()
        parser = httptools.HttpRequestParser(sink)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass  # rule 3
        except httptools.HttpParserError as error:
            raise HttpRefusal(400, f"cannot accept the request: {str(error).lower()[:80]}") from None
        if not sink.head_done or sink.trailing or sink.body:
            raise HttpRefusal(400, "cannot accept the request: its head is not whole")
        method = parser.get_method().decode("ascii")
        length = _demand(parser, method, sink, self._limit)
        path, _, query = sink.url.decode("ascii").partition("?")
        expects = any(value.lower() == "100-continue" for value in sink.headers.get("expect", ()))
        closes = any("close" in value.lower() for value in sink.headers.get("connection", ()))
        head = RequestHead(
            method=method,
            path=path,
            query=query,
            headers=sink.headers,
            length=length,
            expects=expects,
            closes=closes,
        )
        if length is None:
            self._chunks = parser, sink
        else:
            self._known.keep(raw, head, len(raw))
        return head

    def _counted(self, length: int) -> bytes | None:
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _chunked(self) -> bytes | None:
        if self._chunks is None:
            return None
        parser, sink = self._chunks
        data, self._buffer = bytes(self._buffer), bytearray()
        if data:
            try:
                parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise HttpRefusal(400, f"cannot accept the body: {str(error).lower()[:80]}") from None
        if sink.trailing:
            raise HttpRefusal(400, "cannot accept the body: something follows its last chunk")
        if len(sink.body) > self._limit:
            raise HttpRefusal(413, f"cannot accept the body: it is above {self._limit} bytes")
        return bytes(sink.body) if sink.done else None


def _demand(parser: httptools.HttpRequestParser, method: str, sink: _Sink, limit: int) -> int | None:
    """Rule 2 for a head. The length of the body, or None: it comes in chunks."""
    headers = sink.headers
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length", ("0",))
    hosts = len(headers.get("host", ()))
    version = parser.get_http_version()
    size = int(length[0]) if len(length) == 1 and _NUMBER.match(length[0]) else -1
    coded = coding is not None and ([each.lower() for each in coding] != ["chunked"] or "content-length" in headers)
    broken = (  # in the order of ``_RULES``
        version != "1.1",
        method == "CONNECT",
        hosts != 1,
        _TARGET.match(sink.url) is None,
        len(sink.url) > _TARGET_BYTES,
        coded,
        size < 0,
        "trailer" in headers,
        "content-encoding" in headers,
        size > limit,
    )
    if True in broken:
        status, got = _RULES[broken.index(True)]
        raise HttpRefusal(
            status, f"cannot accept the request: got {got.format(version=version, hosts=hosts, size=size, limit=limit)}"
        )
    return None if coding is not None else size


_RULES: Final = (
    (505, "HTTP/{version}"),
    (400, "method CONNECT"),
    (400, "{hosts} Host headers"),
    (400, "a target that is not a plain path"),
    (414, f"a target above {_TARGET_BYTES} bytes"),
    (400, "a transfer coding other than chunked"),
    (400, "a Content-Length that is not one number"),
    (400, "trailers"),
    (415, "a content coding"),
    (413, "a body of {size} bytes, above {limit}"),
)
"""What each rule says of a head that breaks it: the status, and what it got."""
