"""The table of requests is complete, and names what the service really has."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from attestd.control import messages as m
from attestd.control.routes import ROUTES, Right, Shape, needed
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


def test_exactly_what_changes_something_needs_a_right() -> None:
    """The marked requests are those that change grants, servers or configuration."""
    assert {route.method for route in ROUTES.values() if route.right is not Right.NONE} == CHANGING


def samples() -> list[m.AnyRequest]:
    """One request of each kind, as plain as it can be."""
    words: dict[str, Any] = {"pending": "7F3K-9QRT", "grant": "g", "grants": ("g",), "lifetime": "1h", "decision": "d"}
    words |= {"name": "time", "server": "time"}
    made = []
    for kind in ROUTES:
        fields = msgspec.structs.fields(kind)
        made.append(kind(**{field.name: words[field.name] for field in fields if field.required}))
    return made  # type: ignore[return-value]


def test_one_right_is_enough_in_user_mode_and_two_are_told_apart_on_a_system_installation() -> None:
    """What is about one's own programs needs to approve, what is everybody's to manage, the whole log too."""
    rights = {ROUTES[type(each)].method: needed(each, system=True) for each in samples()}
    approve = {"approve", "deny", "grants_revoke", "grants_renew"}
    assert {method for method, right in rights.items() if right is Right.APPROVE} == approve
    assert {method for method, right in rights.items() if right is Right.MANAGE} == CHANGING - approve | {
        "audit_verify"
    }
    assert needed(m.VerifyAudit(), system=False) is Right.NONE


@pytest.mark.parametrize(
    "request_", [each for each in samples() if hasattr(each, "all_users")], ids=lambda each: type(each).__name__
)
def test_all_users_things_are_for_who_may_manage(request_: m.AnyRequest) -> None:
    """Whatever is asked about all users needs the right to manage, looking too; in user mode there is one user."""
    asked = msgspec.structs.replace(request_, all_users=True)
    assert needed(asked, system=True) is Right.MANAGE
    assert needed(asked, system=False) is ROUTES[type(asked)].right


def test_a_users_own_server_is_its_own_affair() -> None:
    """Adding one for oneself alone needs to approve, not to manage."""
    assert needed(m.AddServer(name="x", own=True), system=True) is Right.APPROVE


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
