"""Fuzz target of the wire room.

Invariant: for any bytes, the parser yields a message or a WireError and nothing else happens. If it yields a message,
the line that would be forwarded is one line for every reader, and Python's json, node's JSON.parse (where node is
installed) and msgspec all see in it the object that was decided on; parsing it again gives the same message, and
classifying it gives a call with targets or a WireError.
For any bytes, the framer yields the same lines however they are cut, and the server side yields a message or a
WireError; if a message, what it forwards is one line, and again the same message.

Deterministic: everything follows from the seed. Run ``python -m tests.fuzz.fuzz_wire [seconds] [seed]``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from attestd.wire.classify import classify
from attestd.wire.framing import Line, LineFramer
from attestd.wire.methods import REVISIONS
from attestd.wire.model import Era, Kind, Limits, Message, WireError
from attestd.wire.parse import parse_message, split_batch
from attestd.wire.serialise import message_line
from attestd.wire.server import ServerMessage, forward, parse_server_line
from tests.support.node import NODE, Node, as_doubles

LIMITS = Limits(message_bytes=64 * 1024, values=5000)
VECTORS = Path(__file__).parents[1] / "vectors/wire"

PIECES = (
    b"\r",
    b"\n",
    b"\0",
    b"\\u0000",
    b"\\ud800",
    b"\\u017f",
    b"\\u212a",
    b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"\xff",
    b"\xc0\xaf",
    b"\xef\xbb\xbf",
    b"NaN",
    b"1e999",
    b"-0",
    b"1.0",
    b"9" * 310,
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b",",
    b":",
    b" ",
    b'"method":"tools/call",',
    b'"Method":"tools/call",',
    b'"result":{},',
    b'"id":1,',
    b'"id":1.5,',
    b'"params":{"name":"x"},',
    b'"name":"y",',
    b'"_meta":{"progressToken":1},',
    b'"inputRequests":{"a":{"method":"roots/list"}},',
    b'"uri":"file:///a/../b",',
    b'"taskId":"t",',
    b"[" * 70,
    b'{"a":' * 70,
    b"\\u0061",
    b"\\/",
    b'"a":"' + b"x" * 3000 + b'",',
)
SEEDS = (
    b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hi"}],"isError":false}}',
    (
        b'{"result":{"resultType":"input_required","requestState":"s","inputRequests":{"q":{"method":"elicitation/create"}}},'
        b'"jsonrpc":"2.0","id":1}'
    ),
    b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"m","data":{"a":[1,2.5e3]}}}',
    (
        b'{"jsonrpc":"2.0","method":"notifications/tasks","params":{"taskId":"t",'
        b'"inputRequests":{"a":{"method":"roots/list"}}}}'
    ),
    (
        b'{"jsonrpc":"2.0","id":2,"method":"subscriptions/listen","params":{"notifications":{"taskIds":["t"],'
        b'"resourceSubscriptions":["a:b"]}}}'
    ),
    b'{"jsonrpc":"2.0","id":3,"method":"completion/complete","params":{"ref":{"type":"ref/resource","uri":"a://{b}"}}}',
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/initialized"}]',
)
Peer = Callable[[bytes], Any]


def corpus() -> list[bytes]:
    """The pinned vectors and a few lines more."""
    refused = [item["bytes"].encode("latin-1") for item in json.loads((VECTORS / "refused.json").read_text())]
    accepted = [item["text"].encode() for item in json.loads((VECTORS / "accepted.json").read_text())]
    return [*refused, *accepted, *SEEDS]


def mutants(seed: float) -> Iterator[bytes]:
    """An endless stream of damaged messages."""
    chance = random.Random(seed)
    lines = corpus()
    while True:
        data = bytearray(chance.choice(lines))
        for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(5):
                case 0:
                    data[at:at] = chance.choice(PIECES)
                case 1:
                    del data[at : at + chance.randrange(1, 8)]
                case 2:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 3:
                    other = chance.choice(lines)
                    start = chance.randrange(len(other) + 1)
                    data[at:at] = other[start : start + chance.randrange(40)]
                case _:
                    data[at : at + 8] = data[at : at + 8] * 2
        yield bytes(data)


def check_message(data: bytes, node: Peer | None) -> Message | None:
    """The first half of the invariant."""
    try:
        message = parse_message(data, LIMITS)
    except WireError:
        message = None
    with contextlib.suppress(WireError):
        for item in split_batch(data, "2025-03-26", LIMITS):
            if isinstance(item, Message):
                check_forwarded(item, None)
    if message is not None:
        check_forwarded(message, node)
    return message


def check_forwarded(message: Message, node: Peer | None) -> None:
    """A message that was accepted is seen alike by everyone."""
    line = message_line(message)
    one_line(line)
    same(json.loads(line), message.body)
    same(as_doubles(msgspec.json.decode(line)), as_doubles(message.body))
    if node is not None:
        same(as_doubles(node(line)), as_doubles(message.body))
    again = parse_message(line.removesuffix(b"\n"), LIMITS)
    same(msgspec.structs.replace(again, encoded=None), msgspec.structs.replace(message, encoded=None))
    if message.kind in {Kind.REQUEST, Kind.NOTIFICATION}:
        for revision, era in ((None, Era.UNKNOWN), *((text, Era.UNKNOWN) for text in REVISIONS)):
            with contextlib.suppress(WireError):
                demand(bool(classify(message, revision, era).targets), "a call without targets")


def check_server(data: bytes) -> ServerMessage | None:
    """The second half of the invariant, for one line of a server."""
    try:
        message = parse_server_line(data, LIMITS)
    except WireError:
        return None
    line = b"".join(forward(message))
    one_line(line)
    again = parse_server_line(line.removesuffix(b"\n"), LIMITS)
    same(
        (again.kind, again.id, again.method, again.params, again.head),
        (message.kind, message.id, message.method, message.params, message.head),
    )
    same(again.error, message.error)
    return message


def check_framer(data: bytes, cuts: list[int]) -> None:
    """However the stream is cut, the lines are the same."""
    limit = 50
    whole = LineFramer(limit)
    expected = [shown(item) for item in whole.feed(data)] + [shown(whole.finish())]
    framer = LineFramer(limit)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    items = [shown(item) for start, end in itertools.pairwise(edges) for item in framer.feed(data[start:end])]
    same([*items, shown(framer.finish())], expected)
    lines = [item for item in LineFramer(limit).feed(data) if isinstance(item, Line)]
    for line in lines:
        same(data[line.start : line.end].removesuffix(b"\n").removesuffix(b"\r"), line.data)


def shown(item: Line | WireError | None) -> object:
    """A comparable form."""
    return (item.cause, item.request_id, item.message) if isinstance(item, WireError) else item


def one_line(line: bytes) -> None:
    """One line for every reader, its LF at the end."""
    demand(line.endswith(b"\n") and len(line.decode("utf-8").splitlines()) == 1, f"more than one line: {line!r}")


def same(got: object, expected: object) -> None:
    """Equality with a message."""
    demand(got == expected, f"got {got!r}, expected {expected!r}")


def demand(holds: bool, message: str) -> None:
    """The invariant does not hold."""
    if not holds:
        raise AssertionError(message)


def run(seconds: float, seed: float) -> tuple[int, int]:
    """Fuzz for a time; return how many inputs there were and how many of them were messages."""
    until = time.monotonic() + seconds
    chance = random.Random(seed)
    count = accepted = 0
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(Node()).parse if NODE else None
        for data in mutants(seed):
            if count % 64 == 0 and time.monotonic() > until:
                return count, accepted
            count += 1
            accepted += check_message(data, node) is not None
            accepted += check_server(data) is not None
            check_framer(data, [chance.randrange(200) for _ in range(chance.randrange(6))])
    return count, accepted


if __name__ == "__main__":
    given = [float(text) for text in sys.argv[1:3]]
    inputs, messages = run(*(given + [10.0, 0][len(given) :]))
    print(f"inputs {inputs}, accepted {messages}")
