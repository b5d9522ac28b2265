"""The words of a session."""

from __future__ import annotations

import pytest

from attestd.enforcement.effects import no, raiser, whole, without_echo
from attestd.errors import Cause
from attestd.wire.model import WireError
from tests.support.wire import line, parsed


def test_an_echo_is_taken_out():
    """What the server never issued does not reach it; everything else does, and the message itself is not changed."""
    message = parsed(
        line("tools/call", {"name": "x", "requestState": "s", "inputResponses": {}, "arguments": {"a": 1}})
    )
    assert without_echo(message)["params"] == {"name": "x", "arguments": {"a": 1}}
    assert without_echo(message)["id"] == message.id
    assert message.params["requestState"] == "s"


def test_small_words():
    """The server as a target, a refusal to the server, a parse that fails."""
    assert (whole("elicit").action, whole("elicit").kind, whole("elicit").name) == ("elicit", "server", "")
    assert no(3, -1, "no").body == {"jsonrpc": "2.0", "id": 3, "error": {"code": -1, "message": "no"}}
    with pytest.raises(WireError):
        raiser(WireError(Cause.MALFORMED, "x"))()
