"""What a message may name, as dialogues."""

from __future__ import annotations

from attestd.wire.lookalike import META_SUBSCRIPTION
from tests.support.dialogue import Dialogue, tell


def test_frames_of_a_subscription_that_nobody_has_are_dropped():
    """A tag must name an open listen request of this caller."""
    talk = Dialogue().initialize()
    for tag in (7, "7", None, [7]):
        assert talk.server(tell("notifications/tools/list_changed", {"_meta": {META_SUBSCRIPTION: tag}})) == []


def test_the_server_tells_nothing_to_a_caller_without_grants():
    """News of lists and log messages are for those who may use the server."""
    talk = Dialogue().initialize()
    news = [tell("notifications/tools/list_changed"), tell("notifications/message", {"level": "info", "data": "x"})]
    assert len(talk.server(*news)) == 2
    talk.caller.admitted = False
    assert talk.server(*news) == []
