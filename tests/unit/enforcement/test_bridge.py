"""Which era is found, by what is asked, and what is remembered."""

from __future__ import annotations

import pytest

from attestd.enforcement.bridge import Stage
from attestd.enforcement.bridge_effects import Eras, Habits
from attestd.enforcement.effects import UnansweredError
from attestd.errors import Cause
from attestd.wire.model import WireError
from attestd.wire.translate import MODERN
from tests.support.bridging import REFUSES, Talk, discovery, handshake, meta

INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}


def test_a_legacy_client_before_a_server_that_answers():
    """Initialize is passed on, its answer is the server's own, and nothing is translated from then on."""
    talk = Talk()
    assert talk.client("initialize", 0, **INITIALIZE).sent[0]["params"] == INITIALIZE
    assert talk.server(id=0, result=handshake()).shown[0]["result"] == handshake()
    assert talk.bridge.native
    assert talk.eras == Eras(legacy=True)


def test_a_modern_client_before_a_server_that_answers():
    """server/discover is passed on, its answer is the server's own, and nothing is translated from then on."""
    talk = Talk()
    talk.modern("server/discover", "d").server(id="d", result=discovery())
    assert talk.shown[0]["result"] == discovery()
    assert talk.bridge.native
    assert talk.eras == Eras(modern=True)


@pytest.mark.parametrize("code", [-32020, -32021, -32022])
def test_an_error_that_only_modern_servers_know(code: int):
    """It tells the era, and the client gets it as it is."""
    talk = Talk()
    talk.modern("server/discover", 1).server(id=1, error={"code": code, "message": "no"})
    assert talk.shown[0]["error"]["code"] == code
    assert talk.bridge.native


def test_a_modern_client_before_a_legacy_server():
    """The server gets initialize with what the client said of itself, then initialized; the client its discovery."""
    talk = Talk()
    talk.modern("server/discover", 1).server(id=1, error=REFUSES)
    (asked,) = talk.sent
    assert asked["method"] == "initialize"
    assert asked["params"]["clientInfo"] == {"name": "c", "version": "1"}
    assert talk.shown == []
    talk.server(id="attestd-initialize", result=handshake())
    assert [body["method"] for body in talk.sent] == ["notifications/initialized"]
    assert talk.shown[0]["id"] == 1
    assert talk.shown[0]["result"]["supportedVersions"] == [MODERN]
    assert talk.shown[0]["result"]["instructions"] == "be kind"
    assert talk.eras == Eras(modern=False, legacy=True)


def test_a_client_that_may_fall_back():
    """By default the server's refusal of server/discover is the client's answer, and its initialize is passed on."""
    talk = Talk(always=False)
    talk.modern("server/discover", 1).server(id=1, error=REFUSES)
    assert talk.shown[0]["error"] == REFUSES
    talk.client("initialize", 2, **INITIALIZE).server(id=2, result=handshake())
    assert talk.bridge.native


def test_a_client_that_does_not_fall_back():
    """One that goes on in the modern era after the refusal is translated for."""
    talk = Talk(always=False)
    talk.modern("server/discover", 1).server(id=1, error=REFUSES)
    assert talk.modern("tools/list", 2).sent[0]["method"] == "initialize"
    talk.server(id="attestd-initialize", result=handshake())
    assert talk.sent[1]["method"] == "tools/list"


def test_a_program_that_never_falls_back():
    """After one refusal that no initialize followed, its server/discover is answered in the legacy server's place."""
    habits = Habits()
    Talk(always=False, habits=habits).modern("server/discover", 1).server(id=1, error=REFUSES)
    again = Talk(always=False, habits=habits, eras=Eras(modern=False))
    assert again.modern("server/discover", 1).sent[0]["method"] == "initialize"
    again.server(id="attestd-initialize", result=handshake())
    assert again.shown[0]["result"]["supportedVersions"] == [MODERN]


def test_a_program_that_falls_back_on_another_connection():
    """Some clients ask server/discover on a connection of its own, and say initialize on the next: no translation."""
    habits = Habits()
    Talk(always=False, habits=habits).modern("server/discover", 1).server(id=1, error=REFUSES)
    Talk(always=False, habits=habits).client("initialize", 2, **INITIALIZE).server(id=2, result=handshake())
    again = Talk(always=False, habits=habits).modern("server/discover", 1).server(id=1, error=REFUSES)
    assert again.shown[0]["error"] == REFUSES


def test_a_modern_request_without_discovery():
    """The server is asked first, because a legacy one might carry it out; meanwhile it waits, and then goes out once."""
    talk = Talk()
    talk.modern("tools/call", 1, name="t")
    (asked,) = talk.sent
    assert asked["method"] == "server/discover"
    assert talk.bridge.asking
    assert talk.modern("tools/call", 2, name="u").sent == []
    talk.server(id=asked["id"], result=discovery())
    assert [body["id"] for body in talk.sent] == [1, 2]
    assert talk.bridge.native


def test_our_own_question_is_whole():
    """What the client's envelope lacks does not make our question one that a modern server refuses."""
    talk = Talk()
    short = {"io.modelcontextprotocol/protocolVersion": MODERN}
    asked = talk.modern("tools/call", 1, _meta=short, name="t").sent[0]["params"]["_meta"]
    assert asked["io.modelcontextprotocol/clientCapabilities"] == {}
    assert asked["io.modelcontextprotocol/clientInfo"]["name"] == "attestd"


def test_a_discover_that_is_wrong_in_itself():
    """Its refusal is passed on and tells nothing of the server."""
    talk = Talk()
    talk.modern("server/discover", 1, _meta={"io.modelcontextprotocol/protocolVersion": MODERN})
    talk.server(id=1, error={"code": -32602, "message": "no capabilities"})
    assert talk.shown[0]["error"]["code"] == -32602
    assert talk.eras == Eras()
    assert talk.bridge.stage is Stage.OPEN


def test_a_silent_server():
    """A server that does not answer server/discover is a legacy one; one that answers nothing is neither."""
    talk = Talk(always=False)
    talk.modern("server/discover", 1)
    assert talk.silent().sent[0]["method"] == "initialize"
    talk.silent()
    assert talk.refused[0].request_id == 1
    assert talk.refused[0].error.cause is Cause.ERA
    assert talk.eras == Eras()


def test_a_legacy_client_before_a_modern_server():
    """Initialize is answered from the discovery, in the revision that the client asked for."""
    talk = Talk()
    talk.client("initialize", 0, **{**INITIALIZE, "protocolVersion": "2025-06-18"})
    talk.server(id=0, error={"code": -32601, "message": "no"})
    (asked,) = talk.sent
    assert asked["method"] == "server/discover"
    talk.server(id=asked["id"], result=discovery())
    result = talk.shown[0]["result"]
    assert talk.shown[0]["id"] == 0
    assert result["protocolVersion"] == "2025-06-18"
    assert result["serverInfo"] == {"name": "s", "version": "2"}
    assert talk.eras == Eras(modern=True, legacy=False)


def test_a_server_that_speaks_neither():
    """The client gets the server's own answer, what waited is refused with the cause, and nothing is remembered."""
    talk = Talk()
    talk.client("initialize", 0, **INITIALIZE)
    talk.client("tools/list", 1).server(id=0, error={"code": -5, "message": "go away"})
    talk.server(id="attestd-discover", error=REFUSES)
    assert talk.shown[0]["error"]["message"] == "go away"
    assert [(each.request_id, each.error.cause) for each in talk.refused] == [(1, Cause.ERA)]
    assert talk.eras == Eras()


def test_what_is_remembered_is_not_asked_again():
    """A second connection goes straight to the era that is known, both ways."""
    legacy = Talk(eras=Eras(modern=False, legacy=True))
    assert legacy.modern("server/discover", 1).sent[0]["method"] == "initialize"
    legacy.server(id="attestd-initialize", result=handshake())
    assert legacy.shown[0]["id"] == 1
    modern = Talk(eras=Eras(modern=True, legacy=False))
    assert modern.client("initialize", 1, **INITIALIZE).sent[0]["method"] == "server/discover"
    modern.server(id="attestd-discover", result=discovery())
    assert modern.shown[0]["id"] == 1
    known = Talk(eras=Eras(modern=True))
    assert known.modern("tools/list", 1).sent[0]["method"] == "tools/list"


def test_what_is_remembered_wrongly_is_forgotten():
    """A server that has changed is asked anew by the next connection."""
    talk = Talk(eras=Eras(modern=False, legacy=True))
    talk.modern("tools/list", 1).server(id="attestd-initialize", error=REFUSES)
    assert talk.refused[0].error.cause is Cause.ERA
    assert talk.eras == Eras()


def test_an_unreachable_server_tells_nothing():
    """That nobody was there is the client's answer and no era."""
    talk = Talk()
    talk.modern("tools/list", 1)
    gone = UnansweredError(Cause.SERVER_UNAVAILABLE, "nobody", request_id="attestd-discover", sent=False)
    talk.malformed("attestd-discover", gone)
    assert [(each.request_id, each.error.cause) for each in talk.refused] == [(1, Cause.SERVER_UNAVAILABLE)]
    assert talk.eras == Eras()
    assert talk.modern("tools/list", 2).sent[0]["method"] == "server/discover"


def test_an_answer_that_is_not_mcp():
    """A garbled answer to our question counts as a refusal; one to the client's own request is the client's."""
    talk = Talk()
    talk.modern("tools/list", 1).malformed("attestd-discover", WireError(Cause.MALFORMED, "garbled"))
    assert talk.sent[0]["method"] == "initialize"
    other = Talk()
    other.client("ping", 7).malformed(7, WireError(Cause.MALFORMED, "garbled"))
    assert other.refused[0].request_id == 7


def test_messages_without_an_era_pass():
    """A request that tells no era goes to the server and its answer to the client, before anything is decided."""
    talk = Talk()
    assert talk.client("ping", 1).sent[0]["method"] == "ping"
    assert talk.server(id=1, result={}).shown[0]["id"] == 1
    assert talk.server(method="notifications/message", params={"level": "info", "data": 1}).shown
    assert meta()["io.modelcontextprotocol/protocolVersion"] == MODERN
