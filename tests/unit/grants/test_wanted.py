"""From wants to the object of a grant."""

from __future__ import annotations

import pytest

from attestd.grants.model import Want
from attestd.grants.wanted import ASKED_METHODS, ONLY_CONNECTED, wanted


def wants(*pairs: tuple[str, str]) -> list[Want]:
    """Wants of (method, name), asked once each."""
    return [Want(method=method, name=name, count=1) for method, name in pairs]


@pytest.mark.parametrize(
    ("method", "name", "field"),
    [
        ("tools/call", "get", "tools"),
        ("resources/read", "file:///a", "resources"),
        ("resources/subscribe", "file:///a", "resources"),
        ("subscriptions/listen", "file:///a", "resources"),
        ("prompts/get", "plan", "prompts"),
        ("completion/complete", "plan", "prompts"),
    ],
)
def test_each_method_has_its_list(method: str, name: str, field: str):
    """A name goes into the list of its method and into no other."""
    found = wanted(wants((method, name)))
    assert found is not None
    lists = {each: getattr(found, each) for each in ("tools", "resources", "prompts", "server_requests")}
    assert {each for each, names in lists.items() if names} == {field}
    assert lists[field] == (name,)


def test_completion_of_a_uri_may_be_either():
    """A completion's name with a colon is granted as the prompt and as the resource that it may be."""
    found = wanted(wants(("completion/complete", "file:///{path}")))
    assert found is not None
    assert found.prompts == found.resources == ("file:///{path}",)


def test_server_requests_are_named_by_method():
    """A refused request of the server asks for its method."""
    found = wanted(wants(*((method, "") for method in ASKED_METHODS.values())))
    assert found is not None
    assert found.server_requests == tuple(ASKED_METHODS.values())


def test_connection_only():
    """Only nameless methods: the constant that stands for the whole server."""
    assert wanted(wants(("initialize", ""), ("ping", ""))) is ONLY_CONNECTED
    assert ONLY_CONNECTED.server_requests == ()


def test_nothing_known():
    """No wants, unknown methods and empty names give nothing to grant."""
    assert wanted([]) is None
    assert wanted(wants(("tools/call", ""), ("evil/method", "x"))) is None


def test_a_named_want_outweighs_the_connection():
    """A connection beside a named want does not widen it."""
    found = wanted(wants(("initialize", ""), ("tools/call", "get")))
    assert found is not None
    assert (found.tools, found.resources) == (("get",), ())
