"""Members of an object as slices."""

from __future__ import annotations

import pytest

from attestd.errors import Cause
from attestd.wire.members import members
from attestd.wire.model import WireError


def raws(text: bytes) -> dict[str, bytes]:
    """The members as plain bytes."""
    return {key: bytes(member.raw) for key, member in members(text).items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"{}", {}),
        (b" { } ", {}),
        (b'{"a":1,"b":{"c":[1, 2]},"d":"x"}', {"a": b"1", "b": b'{"c":[1, 2]}', "d": b'"x"'}),
        (b' {\t"a" : 1 ,\r\n "b":\n[ ] } ', {"a": b"1", "b": b"[ ]"}),
        (b'{"\\u0061\\"":"}","":null}', {'a"': b'"}"', "": b"null"}),
        ('{"é":"é"}'.encode(), {"\u00e9": '"é"'.encode()}),
        (b'{"a":{"a":1},"b":"{\\"a\\":1}"}', {"a": b'{"a":1}', "b": b'"{\\"a\\":1}"'}),
    ],
)
def test_members(text: bytes, expected: dict[str, bytes]):
    """Keys are decoded, values are the bytes of the text, white space is nobody's."""
    assert raws(text) == expected
    assert list(raws(text)) == list(expected)


def test_offsets_and_slices():
    """A member can be split in turn, where it stands."""
    text = b'{"x":1, "result": {"a":[1],"b":2} }'
    result = members(text)["result"]
    assert text[result.start : result.end] == b'{"a":[1],"b":2}'
    assert list(members(text, result.start, result.end)) == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a":1,"b":2,"a":3}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":{"a":1},"a":{"a":1}}',
        b'{"a":"x","a":"x\\",\\"b\\":1"}',
        b'{"a":[1,2],"a":[1]}',
        b'{"a":1,"a":12}',
        b'{"a":12,"a":1}',
    ],
)
def test_duplicates_are_found(text: bytes):
    """Whatever the two values look like, a key is there once."""
    with pytest.raises(WireError, match=r"twice|told apart") as caught:
        members(text)
    assert caught.value.cause is Cause.MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"1",
        b'"a"',
        b"null",
        b'{"a":}',
        b'{"a":1',
        b'{"a":NaN}',
        b'{"a":1}x',
        b'{"a":"\n"}',
        b"{a:1}",
        b'{"a":1,}',
    ],
)
def test_what_is_no_object(text: bytes):
    """The values are checked to be JSON, though they are not decoded."""
    with pytest.raises(WireError) as caught:
        members(text)
    assert caught.value.cause is Cause.MALFORMED


def test_hostile_nesting_is_an_error_not_a_crash():
    """A hundred thousand levels end in TOO_DEEP."""
    with pytest.raises(WireError) as caught:
        members(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert caught.value.cause is Cause.TOO_DEEP
