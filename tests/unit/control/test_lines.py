"""Bytes become values or errors of ours, and the wire form of requests and replies is pinned."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.control import messages as m
from attestd.control import replies as r
from attestd.control.lines import (
    Done,
    Envelope,
    Failure,
    Hello,
    Item,
    RemoteError,
    encode,
    encode_reply,
    failure_of,
    parse_reply,
    parse_request,
    parse_server_line,
    same_major,
)
from attestd.errors import AttestdError, ExitCode, IntegrityError, NotPermittedError, UnreachableError, UsageError


def line(request: dict[str, Any], *, nonce: str = "n", protocol: str = "1.0") -> bytes:
    """A request as bytes."""
    return json.dumps({"protocol": protocol, "nonce": nonce, "request": request}).encode()


def test_every_line_is_one_line() -> None:
    """A newline in a value never ends a line."""
    for data in (
        encode(Hello(protocol="1.0", version="0", nonce="a\nb")),
        encode(Failure(code="x", message="a\nb", hint="", exit_code=1)),
        encode_reply(r.Reloaded(generation=1, changes=("a\nb\r",))),
    ):
        assert data.count(b"\n") == 1
        assert data.endswith(b"\n")


def test_the_wire_form_is_pinned() -> None:
    """These bytes are what other versions read."""
    assert encode(Done()) == b'{"type":"done"}\n'
    assert encode_reply(r.Progress(done=1, total=2, what="records")) == (
        b'{"type":"progress","done":1,"total":2,"what":"records"}\n'
    )
    assert encode_reply(r.Reloaded(generation=4)) == b'{"type":"item","data":{"generation":4,"changes":[]}}\n'
    envelope = Envelope(protocol="1.0", nonce="n", request=m.Deny(pending="7F3K-9QRT"))
    assert encode(envelope) == (
        b'{"protocol":"1.0","nonce":"n","request":{"type":"deny","pending":"7F3K-9QRT","always":false}}\n'
    )


def test_requests_come_back_as_they_were() -> None:
    """What is encoded is parsed to the same value."""
    for request in (
        m.GetStatus(),
        m.Approve(pending="c", terms=m.Terms(tools=("a",), lifetime="8h", launched_by=("any-interactive",))),
        m.AddServer(name="x", command=("a", "b"), env={"A": "1"}),
        m.QueryAudit(limit=1),
    ):
        data = encode(Envelope(protocol=m.PROTOCOL, nonce="n", request=request))  # type: ignore[arg-type]
        assert parse_request(data[:-1], "n") == request


def test_another_nonce_is_not_permitted() -> None:
    """A request of another connection, or from before hello, is refused as such."""
    with pytest.raises(NotPermittedError, match="nonce"):
        parse_request(line({"type": "status"}, nonce="old"), "n")


def test_the_version_is_judged_before_anything_else() -> None:
    """A request of another major version gets that answer, however strange the rest is."""
    with pytest.raises(UsageError, match=r"'3\.1'"):
        parse_request(b'{"new":{},"protocol":"3.1"}', "n")


@pytest.mark.parametrize("protocol", ["1.0", "1.7", "1"])
def test_other_minor_versions_are_welcome(protocol: str) -> None:
    """Only the major number counts."""
    same_major(protocol, whose="client")


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "status", "extra": 1},
        {"type": "approve", "pending": "c", "terms": {"tool": "a"}},
        {"type": "approve", "pending": "c", "terms": {"min_level": 0}},
        {"type": "approve", "pending": ""},
        {"type": "inspect", "pid": 0},
        {"type": "inspect", "pid": True},
        {"type": "grants-revoke", "grants": []},
        {"type": "servers-add", "name": "x", "transport": "pigeon"},
        {"type": "audit-tail", "lines": -1},
        {"type": "show"},
        {},
    ],
)
def test_requests_that_say_too_much_or_the_wrong_thing_are_refused(request_: dict[str, Any]) -> None:
    """Unknown keys, values out of range and unknown requests are usage errors; nothing is dropped silently."""
    with pytest.raises(UsageError):
        parse_request(line(request_), "n")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_our_error(data: bytes) -> None:
    """Invariant: parsing gives a request or an AttestdError, never another exception."""
    try:
        parse_request(data, "n")
    except AttestdError:
        return


@given(st.binary(max_size=300))
def test_any_bytes_are_a_server_line_or_unreachable(data: bytes) -> None:
    """Invariant: the client's parser gives a line or UnreachableError, never another exception."""
    try:
        parse_server_line(data)
    except UnreachableError:
        return


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_json_is_a_request_or_our_error(value: Any) -> None:
    """Invariant: well-formed JSON of any shape gives a request or an AttestdError."""
    for data in (value, {"protocol": "1.0", "nonce": "n", "request": value}):
        try:
            parse_request(json.dumps(data).encode(), "n")
        except AttestdError:
            continue


def test_an_error_survives_the_wire() -> None:
    """Code, message, hint and exit code of an error are the same on the other side."""
    told = parse_server_line(encode(failure_of(IntegrityError("record 7 was changed", hint="see it"))))
    assert isinstance(told, Failure)
    error = RemoteError(told)
    assert (error.code, error.message, error.hint) == ("integrity_broken", "record 7 was changed", "see it")
    assert error.exit_code is ExitCode.INTEGRITY_BROKEN


@pytest.mark.parametrize("code", [0, 77, -1])
def test_an_exit_code_that_is_not_in_the_table_means_failed(code: int) -> None:
    """A failure never ends with success, nor with a code that nobody has documented."""
    assert RemoteError(Failure(code="x", message="m", hint="", exit_code=code)).exit_code is ExitCode.FAILED


def test_replies_ignore_what_they_do_not_know() -> None:
    """A newer daemon may add keys."""
    assert parse_reply(msgspec.Raw(b'{"generation":1,"new":{}}'), r.Reloaded) == r.Reloaded(generation=1)
    with pytest.raises(UnreachableError):
        parse_reply(msgspec.Raw(b'{"generation":"one"}'), r.Reloaded)


def test_an_item_keeps_its_bytes() -> None:
    """The data of an item is handed on untouched."""
    told = parse_server_line(b'{"type":"item","data":{"b":1,"a":2}}')
    assert isinstance(told, Item)
    assert bytes(told.data) == b'{"b":1,"a":2}'
