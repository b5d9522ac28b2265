"""The open questions of a server."""

from __future__ import annotations

from typing import Any

from attestd.enforcement.questions import Questions
from attestd.wire.methods import server_request
from attestd.wire.model import Era, Limits
from attestd.wire.serialise import to_line
from attestd.wire.server import ServerMessage, parse_server_line


def question(message_id: int, method: str = "elicitation/create", **params: Any) -> ServerMessage:
    """One request of a server."""
    body = {"jsonrpc": "2.0", "id": message_id, "method": method, "params": params}
    return parse_server_line(to_line(body).rstrip(b"\n"), Limits())


def asked(*messages: ServerMessage, shown: bool = True) -> Questions:
    """Questions with these open."""
    questions = Questions()
    for message in messages:
        row = server_request(str(message.method), revision="2025-11-25", era=Era.LEGACY)
        questions.ask(message, row, shown=shown)
    return questions


def test_a_question_is_answered_once():
    """It is open until it is closed."""
    questions = asked(question(1))
    assert 1 in questions
    assert len(questions) == 1
    assert [questions.close(1), questions.close(1), len(questions)] == [True, False, 0]


def test_progress_is_told_of_open_questions_only():
    """By the token that the server gave; none is no token."""
    questions = asked(question(1, _meta={"progressToken": "p"}), question(2))
    assert questions.awaits("p")
    assert not questions.awaits("q")
    assert not questions.awaits(None)
    questions.close(1)
    assert not questions.awaits("p")


def test_what_waited_is_shown_in_order_and_once():
    """But not what was withdrawn meanwhile."""
    questions = asked(question(1), question(2), question(3), shown=False)
    questions.close(2)
    assert [message.id for message in questions.show()] == [1, 3]
    assert list(questions.show()) == []


def test_recall_takes_back_what_is_not_accepted():
    """By action; a ping asks for nothing; what the client has not seen is named so and never shown."""
    hidden = asked(question(1), question(2, "sampling/createMessage"), question(3, "ping"), shown=False)
    assert hidden.recall(lambda action: action == "create_message") == [(1, "elicitation/create", False)]
    assert [message.id for message in hidden.show()] == [2, 3]
    assert hidden.recall({"elicit"}.__contains__) == [(2, "sampling/createMessage", True)]
    assert len(hidden) == 1
