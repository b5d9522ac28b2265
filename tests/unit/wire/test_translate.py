"""One era's words in the other's."""

from __future__ import annotations

import json

import pytest

from attestd.errors import Cause
from attestd.wire.model import Limits, WireError
from attestd.wire.server import parse_server_line
from attestd.wire.translate import (
    LEGACY,
    MODERN,
    complete,
    discovered,
    envelope,
    initialize_params,
    initialized,
    is_whole,
    meta_of,
    modern_error,
    portable,
    probe,
    speaks_modern,
    without_envelope,
)

REVISION = "io.modelcontextprotocol/protocolVersion"
OFFERS = "io.modelcontextprotocol/clientCapabilities"


def test_capabilities_that_one_era_has_alone_are_not_announced():
    """Tasks and extensions stay at home; whatever is no object offers nothing."""
    assert portable({"tools": {}, "tasks": {}, "extensions": {"x/y": {}}, "experimental": {"z": 1}}) == {
        "tools": {},
        "experimental": {"z": 1},
    }
    assert portable(None) == portable([]) == {}


def test_a_handshake_for_a_modern_client():
    """It says what the client says of itself, and our name where it says none."""
    said = initialize_params({OFFERS: {"roots": {}}}, {"name": "attestd", "version": "1"})
    assert said == {
        "protocolVersion": LEGACY,
        "capabilities": {"roots": {}},
        "clientInfo": {"name": "attestd", "version": "1"},
    }


def test_discovery_from_a_handshake():
    """Name and instructions come along; what a legacy server said may be kept for no time, by nobody else."""
    found = discovered({"capabilities": {"tools": {}}, "serverInfo": {"name": "s"}, "instructions": "x"})
    assert speaks_modern(found)
    assert found["instructions"] == "x"
    assert found["ttlMs"] == 0
    assert found["cacheScope"] == "private"
    assert found["_meta"] == {"io.modelcontextprotocol/serverInfo": {"name": "s"}}


@pytest.mark.parametrize(
    ("wanted", "agreed"), [("2024-11-05", "2024-11-05"), (MODERN, LEGACY), ("1999-01-01", LEGACY), (3, LEGACY)]
)
def test_a_handshake_from_a_discovery(wanted: object, agreed: str):
    """In the revision that the client wants, if that is a legacy one."""
    assert initialized({"capabilities": {}, "supportedVersions": [MODERN]}, wanted)["protocolVersion"] == agreed


def test_the_envelope_comes_and_goes():
    """What is put around a request for a modern server is what is taken off for a legacy one."""
    around = envelope({"capabilities": {"roots": {}, "tasks": {}}, "clientInfo": {"name": "c"}}, "info")
    assert around[REVISION] == MODERN
    assert around[OFFERS] == {"roots": {}}
    assert without_envelope({"name": "t", "_meta": around}) == {"name": "t"}
    assert without_envelope({"_meta": {**around, "progressToken": 1}}) == {"_meta": {"progressToken": 1}}


def test_what_a_question_of_ours_needs():
    """It is whole whatever the client's envelope lacks."""
    assert not is_whole({REVISION: MODERN})
    assert is_whole(probe({REVISION: "else"}, {"name": "attestd"}))
    assert meta_of(None) == meta_of({"_meta": 3}) == {}


def test_a_result_becomes_complete_without_being_decoded():
    """Numbers that Python cannot hold and keys below the first level stay as they are."""
    line = (
        b'{"jsonrpc":"2.0","id":1,"result":{"a":1.00,"b":{"ttlMs":5,"x":12345678901234567890123},"resultType":"odd"}}'
    )
    done = complete(parse_server_line(line, Limits()), "tools/call")
    assert done.result is not None
    assert bytes(done.result) == b'{"resultType":"complete","a":1.00,"b":{"ttlMs":5,"x":12345678901234567890123}}'
    assert done.head is not None
    assert done.head.result_type == "complete"
    empty = complete(parse_server_line(b'{"jsonrpc":"2.0","id":1,"result":{}}', Limits()), "resources/list")
    assert empty.result is not None
    assert json.loads(bytes(empty.result)) == {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


def test_errors_keep_what_they_say():
    """Message and data stay; data is put below the old code where that is told."""
    assert modern_error({"code": -32002, "message": "m", "data": 1}) == {"code": -32602, "message": "m", "data": 1}
    assert modern_error({"code": -32070, "message": "m", "data": 1})["data"] == {"legacy_code": -32070, "data": 1}
    assert modern_error({"code": -31403, "message": "m"}) == {"code": -31403, "message": "m"}


def test_what_is_no_discovery():
    """Neither another type nor other revisions are the modern era."""
    assert not any(map(speaks_modern, (None, [], {}, {"supportedVersions": MODERN}, {"supportedVersions": [LEGACY]})))
    with pytest.raises(WireError) as caught:
        parse_server_line(b'{"jsonrpc":"2.0","id":1,"result":3}', Limits())
    assert caught.value.cause is Cause.MALFORMED
