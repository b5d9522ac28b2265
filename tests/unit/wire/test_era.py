"""Era and revision of one message."""

from __future__ import annotations

import pytest

from attestd.wire.era import client_name, declared_revision, demand_modern_revision, era_of
from attestd.wire.model import Era, WireError
from tests.support.wire import ABSENT, MODERN_META, REVISION_KEY, line, parsed


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("tools/call", {"name": "x", "_meta": MODERN_META}, Era.MODERN),
        ("tools/list", {"_meta": {REVISION_KEY: None}}, Era.MODERN),
        ("server/discover", ABSENT, Era.MODERN),
        ("initialize", {"protocolVersion": "2025-11-25"}, Era.LEGACY),
        ("tools/list", {"_meta": {"progressToken": 1}}, Era.UNKNOWN),
        ("tools/list", ABSENT, Era.UNKNOWN),
        ("tools/list", {"_meta": []}, Era.UNKNOWN),
    ],
)
def test_era(method: str, params: object, expected: Era):
    """The declared revision makes a message modern, initialize makes it legacy."""
    assert era_of(parsed(line(method, params))) is expected


def test_declared_revision():
    """Read from _meta, or from the params of initialize alone."""
    assert declared_revision(parsed(line("tools/list", {"_meta": MODERN_META}))) == "2026-07-28"
    assert declared_revision(parsed(line("initialize", {"protocolVersion": "2025-06-18"}))) == "2025-06-18"
    assert declared_revision(parsed(line("tools/list", {"protocolVersion": "2025-06-18"}))) is None
    assert declared_revision(parsed(line("initialize", {"protocolVersion": 1}))) is None


@pytest.mark.parametrize("declared", ["2027-01-01", "2025-11-25", "", 5, None, "2026-07-28 "])
def test_other_modern_revisions_are_refused_as_specified(declared: object):
    """-32022 with what is supported and what was asked for."""
    message = parsed(line("tools/list", {"_meta": {REVISION_KEY: declared}}, 3))
    with pytest.raises(WireError) as caught:
        demand_modern_revision(message)
    error = caught.value
    assert (error.rpc_code, error.request_id) == (-32022, 3)
    assert error.data is not None
    assert error.data["supported"] == ["2026-07-28"]


def test_message_without_declaration_demands_nothing():
    """A legacy message passes."""
    assert demand_modern_revision(parsed(line("tools/list"))) is None
    assert demand_modern_revision(parsed(line("tools/list", {"_meta": MODERN_META}))) == "2026-07-28"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"clientInfo": {"name": "Claude Code", "version": "2.1"}}, "Claude Code 2.1"),
        ({"clientInfo": {"name": "x"}}, "x"),
        ({"clientInfo": {"name": "\x1b[31mevil\u202e\n", "version": 5}}, "?[31mevil??"),
        ({"clientInfo": {"name": ""}}, None),
        ({"clientInfo": {"name": "n" * 999, "version": "v" * 999}}, "n" * 128),
        ({"clientInfo": "x"}, None),
        ({"clientInfo": {"name": 5}}, None),
        ({}, None),
    ],
)
def test_client_name(params: object, expected: str | None):
    """A claim, shortened, without what a terminal would obey."""
    assert client_name(parsed(line("initialize", params))) == expected


def test_client_name_of_a_modern_message():
    """The modern era states it in _meta."""
    assert client_name(parsed(line("tools/list", {"_meta": MODERN_META}))) == "probe 1.0"
