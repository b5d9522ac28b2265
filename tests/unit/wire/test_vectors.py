"""The wire, pinned byte for byte by the files under tests/vectors/wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attestd.wire.classify import classify
from attestd.wire.model import Era
from attestd.wire.serialise import message_line
from tests.support.wire import parsed, refused

VECTORS = Path(__file__).parents[2] / "vectors/wire"


def load(name: str) -> list[Any]:
    """One file of vectors, each with what it is for as its test id."""
    return [pytest.param(item, id=item["why"]) for item in json.loads((VECTORS / name).read_text())]


@pytest.mark.parametrize("vector", load("refused.json"))
def test_refused(vector: dict[str, Any]):
    """Cause, id and code of every attack; ``bytes`` holds one character per byte."""
    error = refused(vector["bytes"].encode("latin-1"))
    assert (error.cause.value, error.request_id, error.rpc_code) == (vector["cause"], vector["id"], vector["code"])


@pytest.mark.parametrize("vector", load("accepted.json"))
def test_accepted(vector: dict[str, Any]):
    """What is forwarded, and what is decided on."""
    message = parsed(vector["text"].encode())
    assert message_line(message).decode("ascii") == vector["forwarded"]
    targets = classify(message, None, Era.UNKNOWN).targets
    assert [[target.action, target.kind, target.name] for target in targets] == vector["targets"]
    assert json.loads(vector["forwarded"]) == json.loads(vector["text"])
