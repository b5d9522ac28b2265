"""``subscriptions/listen`` on a legacy server."""

from __future__ import annotations

from typing import Any

from tests.support.bridging import REFUSES, Talk, before_legacy

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
UPDATED = "notifications/resources/updated"


def listening(talk: Talk, message_id: Any, *uris: str, **flags: bool) -> Talk:
    """A stream of these URIs, honoured by the server."""
    wanted: dict[str, Any] = {**flags, **({"resourceSubscriptions": list(uris)} if uris else {})}
    sent = talk.modern("subscriptions/listen", message_id, notifications=wanted).sent
    for each in sent:
        talk.server(id=each["id"], result={})
    return talk


def test_the_acknowledgement_comes_first_and_says_what_is_honoured():
    """Each URI is subscribed to; the one that the server refuses, and the changes that it never tells, are left out."""
    talk = before_legacy()
    wanted = {"toolsListChanged": True, "promptsListChanged": True, "resourceSubscriptions": ["x://a", "x://b"]}
    sent = talk.modern("subscriptions/listen", 5, notifications=wanted).sent
    assert [(each["method"], each["params"]["uri"]) for each in sent] == [
        ("resources/subscribe", "x://a"),
        ("resources/subscribe", "x://b"),
    ]
    assert talk.server(method=UPDATED, params={"uri": "x://a"}).shown == []
    assert talk.server(id=sent[0]["id"], result={}).shown == []
    (told,) = talk.server(id=sent[1]["id"], error=REFUSES).shown
    assert told["method"] == "notifications/subscriptions/acknowledged"
    assert told["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["x://a"]}
    assert told["params"]["_meta"][SUBSCRIPTION] == 5


def test_what_is_told_names_its_stream():
    """Each stream that wants a notification gets it, under its own id; nobody else does."""
    talk = before_legacy()
    listening(talk, 5, "x://a")
    listening(talk, "s", "x://a", toolsListChanged=True)
    told = talk.server(method=UPDATED, params={"uri": "x://a"}).shown
    assert [each["params"]["_meta"][SUBSCRIPTION] for each in told] == [5, "s"]
    told = talk.server(method="notifications/tools/list_changed").shown
    assert [each["params"]["_meta"][SUBSCRIPTION] for each in told] == ["s"]
    assert talk.server(method="notifications/resources/list_changed").shown == []
    assert talk.server(method=UPDATED, params={"uri": "x://b"}).shown == []


def test_a_part_of_a_resource():
    """What is told of a part reaches the stream of the whole; what only begins alike does not."""
    talk = listening(before_legacy(), 5, "x://a")
    assert len(talk.server(method=UPDATED, params={"uri": "x://a/part"}).shown) == 1
    assert talk.server(method=UPDATED, params={"uri": "x://ab"}).shown == []


def test_the_end_of_a_stream():
    """It unsubscribes from what no other stream wants, and is told nothing more."""
    talk = before_legacy()
    listening(talk, 5, "x://a", "x://b")
    listening(talk, 6, "x://a")
    talk.client("notifications/cancelled", requestId=5)
    assert [(each["method"], each["params"]["uri"]) for each in talk.sent] == [("resources/unsubscribe", "x://b")]
    told = talk.server(method=UPDATED, params={"uri": "x://a"}).shown
    assert [each["params"]["_meta"][SUBSCRIPTION] for each in told] == [6]


def test_a_server_that_tells_nothing():
    """The stream opens, honours nothing and subscribes to nothing."""
    talk = Talk()
    talk.modern("server/discover", 0).server(id=0, error=REFUSES)
    result = {
        "protocolVersion": "2025-06-18",
        "capabilities": {"resources": {}},
        "serverInfo": {"name": "s", "version": "1"},
    }
    talk.server(id="attestd-initialize", result=result)
    talk.modern("subscriptions/listen", 5, notifications={"toolsListChanged": True, "resourceSubscriptions": ["x://a"]})
    assert talk.sent == []
    assert talk.shown[0]["params"]["notifications"] == {}
