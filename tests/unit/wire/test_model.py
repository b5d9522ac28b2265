"""Values between the rooms."""

from __future__ import annotations

import pytest

from attestd.errors import AttestdError, Cause
from attestd.wire.model import REFUSED, Limits, ListKind, WireError
from tests.support.wire import parsed


def test_wire_error_carries_what_an_answer_needs():
    """Cause, id, code and data, beside the message."""
    error = WireError(Cause.TOO_DEEP, "cannot", request_id="a", rpc_code=-1, data={"k": 1})
    assert isinstance(error, AttestdError)
    assert (error.cause, error.request_id, error.rpc_code, error.data, str(error)) == (
        Cause.TOO_DEEP,
        "a",
        -1,
        {"k": 1},
        "cannot",
    )


def test_refusal_code_is_outside_the_reserved_range():
    """-32768 to -32000 belongs to JSON-RPC and the specification."""
    assert not -32768 <= REFUSED <= -32000


def test_messages_are_frozen():
    """A parsed message cannot be changed by accident."""
    message = parsed(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
    with pytest.raises(AttributeError):
        message.method = "tools/call"  # type: ignore[misc]


def test_limits_of_mediation():
    """16 MiB, depth 64, 256 open requests."""
    limits = Limits()
    assert (limits.message_bytes, limits.depth, limits.open_requests) == (16 * 1024 * 1024, 64, 256)


def test_list_kinds_are_the_keys_of_the_results():
    """The value of a kind is where its items stand."""
    assert {kind.value for kind in ListKind} == {"tools", "resources", "resourceTemplates", "prompts", "tasks"}
