"""Properties of the wire room, for all messages that hypothesis can think of."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from attestd.wire.classify import classify
from attestd.wire.framing import Line, LineFramer
from attestd.wire.members import members
from attestd.wire.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS
from attestd.wire.model import CallRequest, Era, Limits, Message, WireError
from attestd.wire.parse import load_json, parse_message
from attestd.wire.serialise import message_line, to_bytes, to_line
from attestd.wire.server import forward, parse_server_line
from attestd.wire.uris import canonical
from tests.fuzz import fuzz_wire
from tests.support.node import NODE, Node, as_doubles

LIMITS = Limits()
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**300), 10**300), st.floats(allow_nan=False, allow_infinity=False), text
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=20,
)
ids = st.one_of(st.integers(-(2**63), 2**63 - 1), text)
names = st.sampled_from([row.name for row in (*CLIENT_REQUESTS, *CLIENT_NOTIFICATIONS)])
params = st.dictionaries(
    st.one_of(
        st.sampled_from(
            ["name", "uri", "ref", "taskId", "arguments", "requestId", "notifications", "_meta", "requestState"]
        ),
        text,
    ),
    values,
    max_size=5,
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A request or notification in any key order."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": draw(st.one_of(names, text.filter(bool)))}
    if draw(st.booleans()):
        body["id"] = draw(ids)
    if draw(st.booleans()):
        body["params"] = draw(params)
    return dict(draw(st.permutations(list(body.items()))))


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A running node."""
    if NODE is None:
        pytest.skip("node is not installed")
    with Node() as running:
        yield running


@given(values)
def test_parsing_undoes_serialising(value: Any):
    """load(to_bytes(x)) is x, types and key order included."""
    again = load_json(to_bytes(value), LIMITS)
    assert repr(again) == repr(value)


@given(values, st.sampled_from([None, 1]), st.booleans())
def test_parsing_sees_what_json_sees(value: Any, indent: int | None, ascii_only: bool):
    """However a value is spelt, the quick and the exact way read it as json does."""
    spelt = json.dumps(value, indent=indent, ensure_ascii=ascii_only).replace("\n", " ").encode()
    assert repr(load_json(spelt, LIMITS)) == repr(json.loads(spelt))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies())
def test_everyone_sees_the_same_message(body: dict[str, Any], node: Node):
    """What is forwarded is to node, to Python and to msgspec the object that was decided on."""
    try:
        message = parse_message(to_line(body).removesuffix(b"\n"), LIMITS)
    except WireError:
        return
    line = message_line(message)
    assert message.body == body
    assert line == to_line(body)
    assert json.loads(line) == body
    assert as_doubles(node.parse(line)) == as_doubles(body)


@given(st.one_of(st.binary(max_size=200), bodies().map(to_line), text.map(str.encode)))
@example(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
def test_anything_is_a_message_or_a_wire_error(data: bytes):
    """Nothing else is ever returned or raised, by the parser, the classifier or the server side."""
    try:
        message = parse_message(data.removesuffix(b"\n"), LIMITS)
    except WireError:
        pass
    else:
        assert isinstance(message, Message)
        if message.method is not None:
            with contextlib.suppress(WireError):
                assert isinstance(classify(message, None, Era.UNKNOWN), CallRequest)
    with contextlib.suppress(WireError):
        assert forward(parse_server_line(data, LIMITS))


@given(names, params, st.booleans())
def test_classifying_never_fails_otherwise(method: str, given_params: dict[str, Any], request: bool):
    """Known methods with wild params are calls with targets, or a WireError."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": given_params}
    if request:
        body["id"] = 1
    with contextlib.suppress(WireError):
        message = parse_message(to_line(body).removesuffix(b"\n"), LIMITS)
        for era in Era:
            assert classify(message, None, era).targets


@given(
    st.binary(max_size=300).map(lambda data: data.replace(b"a", b"\n").replace(b"b", b"\r")),
    st.lists(st.integers(0, 300), max_size=8),
)
@example(b"x" * 51 + b"\r\n" + b"y" * 50 + b"\r\nz", [51, 52])
def test_framing_does_not_depend_on_the_chunks(data: bytes, cuts: list[int]):
    """However a stream arrives, it has the same lines at the same places."""
    fuzz_wire.check_framer(data, cuts)


@given(
    st.lists(
        st.binary(min_size=1, max_size=40).filter(lambda line: b"\n" not in line and not line.endswith(b"\r")),
        max_size=8,
    )
)
def test_framing_returns_what_was_framed(lines: list[bytes]):
    """Lines in, lines out."""
    items = LineFramer(100).feed(b"".join(line + b"\n" for line in lines))
    assert [item.data for item in items if isinstance(item, Line)] == lines


@given(
    st.dictionaries(text, values, max_size=6),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
    st.booleans(),
)
def test_members_are_those_of_json(value: dict[str, Any], separators: tuple[str, str], ascii_only: bool):
    """Splitting an object and decoding its slices is decoding the object."""
    spelt = json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode()
    found = {key: json.loads(bytes(member.raw)) for key, member in members(spelt).items()}
    assert repr(found) == repr(json.loads(spelt))


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "\u00e9", "c"]), values), min_size=1, max_size=5))
def test_members_never_hide_a_duplicate(pairs: list[tuple[str, Any]]):
    """An object splits exactly if its keys differ."""
    spelt = ("{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}").encode()
    if len({key for key, _ in pairs}) == len(pairs):
        assert list(members(spelt)) == [key for key, _ in pairs]
    else:
        with pytest.raises(WireError):
            members(spelt)


@given(st.dictionaries(text, values, max_size=5), ids, st.booleans(), st.booleans())
def test_results_pass_unchanged(result: dict[str, Any], message_id: int | str, ascii_only: bool, spaced: bool):
    """Whatever way a server writes a result, the client gets that result under that id."""
    body = {"jsonrpc": "2.0", "id": message_id, "result": result}
    spelt = json.dumps(body, ensure_ascii=ascii_only, separators=None if spaced else (",", ":")).encode()
    try:
        message = parse_server_line(spelt, LIMITS)
    except WireError:
        return
    assert json.loads(b"".join(forward(message))) == body


@given(st.one_of(text, st.from_regex(r"[a-zA-Z]{1,4}://?[a-zA-Z0-9%./:@?#\[\]_~{}-]{0,20}", fullmatch=True)))
def test_canonical_uris_are_stable(uri: str):
    """A canonical URI is its own canonical form: ASCII, without dot segments."""
    try:
        once = canonical(uri)
    except WireError:
        return
    assert canonical(once) == once
    assert once.isascii()
    assert not {".", ".."} & set(once.replace("?", "/").replace("#", "/").split("/"))


@pytest.mark.parametrize("seed", range(3))
def test_fuzz_target_holds_its_invariant(seed: int):
    """Two seconds of each of three seeds; CI may run it longer by hand."""
    inputs, accepted = fuzz_wire.run(2.0, seed)
    assert inputs > 200
    assert accepted > 20
