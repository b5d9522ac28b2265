"""The table of requests is complete, and names what the service really has."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_type_hints

import pytest

from attestd.control import messages as m
from attestd.control.routes import ROUTES, Shape
from attestd.control.service import Service

CHANGING = {
    "approve",
    "deny",
    "grants_revoke",
    "grants_renew",
    "servers_add",
    "servers_trust",
    "servers_seal",
    "servers_unseal",
    "servers_remove",
    "reload",
}


def test_every_request_has_a_route() -> None:
    """No request can be parsed that cannot be answered."""
    assert set(get_args(m.AnyRequest)) == set(ROUTES)
    assert set(m.Request.__subclasses__()) == set() or all(issubclass(each, m.Request) for each in ROUTES)


def test_exactly_what_changes_something_needs_an_approver() -> None:
    """The marked requests are those that change grants, servers or configuration."""
    assert {route.method for route in ROUTES.values() if route.approver} == CHANGING


@pytest.mark.parametrize("request_type", list(ROUTES), ids=lambda each: each.__name__)
def test_the_service_has_the_method_with_that_request_and_reply(request_type: type[m.Request[Any]]) -> None:
    """Method, request type, reply type and shape of a row are those of the protocol."""
    route = ROUTES[request_type]
    method = getattr(Service, route.method)
    hints = get_type_hints(method)
    assert hints["request"] is request_type
    assert inspect.iscoroutinefunction(method) is (route.shape is not Shape.STREAM)
    returned = hints["return"]
    if route.shape is Shape.ONE:
        assert returned is route.reply
    else:
        assert route.reply in (get_args(returned)[0], *get_args(get_args(returned)[0]))


@pytest.mark.parametrize("request_type", list(ROUTES), ids=lambda each: each.__name__)
def test_the_request_promises_the_reply_of_its_route(request_type: type[m.Request[Any]]) -> None:
    """The type argument of a request, which callers see, is the reply that is decoded."""
    base = request_type.__orig_bases__[0]  # type: ignore[attr-defined]
    assert get_args(base) == (ROUTES[request_type].reply,)
