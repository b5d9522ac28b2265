"""The rows W as bytes: every variant of an attack, for either era, on lines and over HTTP.

Each variant tries to have the tool ``steal`` of ``tools_server.py`` executed, or something else that is not granted, and
carries a mark of its own by which the server's log shows whether it was. ``causes`` is what attestd must say: causes of
refusals, or the status where HTTP itself is refused.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "by hand", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
MALFORMED, SCOPE = ("malformed",), ("out_of_scope",)
DEPTH = 100_000
MESSAGE_BYTES = 1 << 20
"""The limit that the daemon under attack is configured to."""


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One way to attack."""

    name: str
    body: bytes
    """One line without its end, or the body of a POST; with ``head`` everything that follows the usual headers."""
    causes: tuple[str, ...]
    headers: dict[str, str | None] = {}
    """Over HTTP, with _ for -; None leaves one out. Those of 2026-07-28 are made from ``said`` otherwise."""
    said: tuple[str, str] = ("tools/call", "steal")
    """Method and name that the headers of 2026-07-28 say."""
    head: str = ""
    """Headers that frame the body, instead of ``Content-Length``: the request is the last one of its connection."""
    noted: tuple[str, str] = ("steal", "")
    """What the server notes if it is executed: the tool or kind, and the text; an empty text is the mark."""


class Words:
    """Messages of one era that carry one mark."""

    def __init__(self, era: str, mark: str, number: int = 9) -> None:
        """``number``: the id of the request that matters; the one before it has the number below."""
        self.modern = era == "modern"
        self.mark = mark
        self.number = number

    def message(self, method: str, params: dict[str, Any] | None = None, *, before: bool = False) -> dict[str, Any]:
        """One request."""
        given = {**(params or {}), **({"_meta": META} if self.modern else {})}
        return {"jsonrpc": "2.0", "id": self.number - before, "method": method, "params": given}

    def harmless(self, *, before: bool = True) -> dict[str, Any]:
        """A request that everybody may make."""
        return self.message("tools/list", {}, before=before)

    def call(self, tool: str = "steal", *, before: bool = False, **more: Any) -> dict[str, Any]:
        """A tool call with the mark."""
        params = {"name": tool, "arguments": {"text": self.mark}, **more}
        return self.message("tools/call", params, before=before)

    def text(self, tool: str = "steal") -> str:
        """The same as JSON, written as Python does: with spaces, the method before the params."""
        return json.dumps(self.call(tool))


def cr_in_a_line(words: Words) -> list[Variant]:
    """W1 on lines."""
    inner = words.text()
    outer = json.dumps(words.harmless())
    return [
        Variant(name="in params", body=f'{outer[:-2]},"x":\r{inner}\r}}}}'.encode(), causes=MALFORMED),
        Variant(name="after a message", body=f"{outer}\r{inner}".encode(), causes=MALFORMED),
    ]


FRAMINGS = {
    "length and chunks": "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "two codings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "two lengths": "Content-Length: 5\r\nContent-Length: 0",
    "a bare LF": "Content-Length: 5\nX: y",
    "a hidden coding": "Transfer-Encoding:\x0bchunked\r\nContent-Length: 5",
}


def smuggled(words: Words, request: Callable[[str], str]) -> list[Variant]:
    """W1 over HTTP: a second request that stands where one reader sees a body. ``request(text)``: a whole request."""
    inner = request(words.text())
    body = f"0\r\n\r\n{inner}".encode("latin-1")
    return [Variant(name=name, body=body, head=head, causes=("400",)) for name, head in FRAMINGS.items()]


def batches(words: Words) -> list[Variant]:
    """W2."""
    batch = json.dumps([words.call("echo", before=True), words.call()]).encode()
    return [Variant(name="two calls", body=batch, causes=("batch",), said=("tools/call", "echo"))]


def two_keys(words: Words) -> list[Variant]:
    """W3."""
    text = words.text()
    found = {
        "method": text.replace('"method"', '"method": "tools/list", "method"'),
        "name": text.replace('"name"', '"name": "echo", "name"', 1),
        "escaped name": text.replace('"name"', '"name": "echo", "n\\u0061me"', 1),
        "params": text.replace('"params"', f'"params": {json.dumps(words.call("echo")["params"])}, "params"'),
        "case": words.text("echo").replace('"name"', '"Name": "steal", "name"', 1),
        "NUL": words.text("echo").replace('"name"', '"name\\u0000": "steal", "name"', 1),
    }
    return [
        Variant(
            name=name,
            body=body.encode(),
            causes=MALFORMED,
            said=("tools/call", "echo" if name in {"case", "NUL"} else "steal"),
        )
        for name, body in found.items()
    ]


def response_and_request(words: Words) -> list[Variant]:
    """W4."""
    found = {
        "result": words.call() | {"result": {}},
        "result first": {"jsonrpc": "2.0", "id": words.number, "result": {}} | words.call(),
        "error": words.call() | {"error": {"code": 1, "message": "x"}},
    }
    return [Variant(name=name, body=json.dumps(body).encode(), causes=MALFORMED) for name, body in found.items()]


def encodings(words: Words, *, http: bool) -> list[Variant]:
    """W5."""
    text = words.text()
    inside = text.replace('{"text"', '{"x": %s, "text"')
    found = {
        "UTF-16": text.encode("utf-16-le"),
        "UTF-32": text.encode("utf-32-be"),
        "byte order mark": text.encode("utf-8-sig"),
        "NaN": (inside % "NaN").encode(),
        "lone surrogate": (inside % '"\\ud800"').encode(),
        "invalid UTF-8": (inside % '"?"').encode().replace(b"?", b"\xff"),
    }
    if not http:
        found = {name: body for name, body in found.items() if b"\n" not in body}
    variants = [Variant(name=name, body=body, causes=MALFORMED) for name, body in found.items()]
    if http:
        utf7 = words.text("echo").replace('"name"', '"name": "echo", "+AG4-ame": "steal", "x"', 1)
        given = {"UTF-7": utf7.encode(), "UTF-16": text.encode("utf-16")}
        variants += [
            Variant(
                name=f"charset {name}",
                body=body,
                causes=("415",),
                headers={"content_type": f"application/json; charset={name}"},
            )
            for name, body in given.items()
        ]
    return variants


def escapes(words: Words) -> list[Variant]:
    """W6."""
    text = words.text()
    found = {
        "method's key": text.replace('"method"', '"\\u006dethod"'),
        "method": text.replace("tools/call", "tools\\/c\\u0061ll"),
        "name": text.replace('"steal"', '"\\u0073te\\u0061l"'),
    }
    return [Variant(name=name, body=body.encode(), causes=SCOPE) for name, body in found.items()]


def other_headers(words: Words) -> list[Variant]:
    """W7."""
    body = words.text().encode()
    in_base64 = f"=?base64?{base64.b64encode(b'echo').decode()}?="
    found: dict[str, dict[str, str | None]] = {
        "another name": {"mcp_name": "echo"},
        "no name": {"mcp_name": None},
        "two names": {"mcp_name": "echo\r\nMcp-Name: steal"},
        "another name in base64": {"mcp_name": in_base64},
        "another method": {"mcp_method": "tools/list"},
        "no method": {"mcp_method": None},
        "a legacy version": {"mcp_protocol_version": "2025-11-25"},
    }
    if not words.modern:
        found = {"a modern version": {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/list"}}
    return [Variant(name=name, body=body, headers=headers, causes=MALFORMED) for name, headers in found.items()]


def side_doors(words: Words) -> list[Variant]:
    """W10."""
    ref = {"ref": {"type": "ref/prompt", "name": "hidden"}, "argument": {"name": "name", "value": ""}}
    prompt = {"name": "hidden", "arguments": {"name": "x"}}
    key = {"uri": "secret://key"}
    found = [
        ("completion", words.message("completion/complete", ref), "", ("complete", "hidden")),
        ("prompt", words.message("prompts/get", prompt), "hidden", ("prompt", "hidden")),
        ("resource", words.message("resources/read", key), "secret://key", ("read", "secret://key")),
        ("task", words.call(task={"ttl": 1000}), "steal", ("steal", "")),
        ("retry", words.call(inputResponses={}, requestState="s"), "steal", ("steal", "")),
    ]
    if not words.modern:
        found.append(("subscription", words.message("resources/subscribe", key), "", ("subscribe", "secret://key")))
    return [
        Variant(name=name, body=json.dumps(body).encode(), causes=SCOPE, said=(body["method"], said), noted=noted)
        for name, body, said, noted in found
    ]


def what_is_anothers(words: Words) -> list[Variant]:
    """W9: names that attestd never gave to this client. Sessions of another have a procedure of their own."""
    state = words.call("echo", inputResponses={}, requestState="made up")
    task = words.message("tasks/get", {"taskId": "made up"})
    return [
        Variant(
            name="state",
            body=json.dumps(state).encode(),
            causes=("not_found",),
            said=("tools/call", "echo"),
            noted=("echo", ""),
        ),
        Variant(name="task", body=json.dumps(task).encode(), causes=("not_found",), said=("tasks/get", "made up")),
    ]


def foreign_pages(words: Words, port: int) -> list[Variant]:
    """W11: a granted call, as a page of a rebinding site would make it. Port 0: a Unix socket, which has any name."""
    body = words.text("echo").encode()
    found: dict[str, dict[str, str | None]] = {
        "Host": {"host": f"evil.example:{port}"},
        "Origin": {"origin": f"http://evil.example:{port}"},
        "both": {"host": f"evil.example:{port}", "origin": f"http://evil.example:{port}"},
        "null": {"origin": "null"},
    }
    if not port:
        found = {name: headers for name, headers in found.items() if "host" not in headers}
    said = ("tools/call", "echo")
    return [
        Variant(name=name, body=body, headers=headers, causes=("403",), said=said, noted=("echo", ""))
        for name, headers in found.items()
    ]


def too_much(words: Words) -> list[Variant]:
    """W13: what one message can do; slow and silent clients have tests of their own."""
    nested = words.text().replace('{"text"', '{"x": %s, "text"' % ("[" * DEPTH + "]" * DEPTH))
    large = words.text().replace('{"text"', '{"x": "%s", "text"' % ("x" * MESSAGE_BYTES))
    return [
        Variant(name="nested", body=nested.encode(), causes=("too_deep",)),
        Variant(name="large", body=large.encode(), causes=("too_large", "413")),
    ]


def of_row(row: str, words: Words, kind: str, request: Callable[[str], str], port: int) -> list[Variant]:
    """The variants of a row that are one message of one client. ``kind``: lines, http or sse."""
    lines = kind == "lines"
    match row:
        case "W1":
            return cr_in_a_line(words) if lines else smuggled(words, request)
        case "W2":
            return batches(words)
        case "W3":
            return two_keys(words)
        case "W4":
            return response_and_request(words)
        case "W5":
            return encodings(words, http=not lines)
        case "W6":
            return escapes(words)
        case "W7":
            return [] if kind != "http" else other_headers(words)
        case "W9":
            return what_is_anothers(words)
        case "W10":
            return side_doors(words)
        case "W11":
            return [] if lines else foreign_pages(words, port)
        case "W13":
            return too_much(words)
    return []
