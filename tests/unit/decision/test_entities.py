"""Facts as entities."""

from __future__ import annotations

from typing import Any

import pytest

from attestd.appraisal.caps import reason
from attestd.appraisal.model import Launcher
from attestd.decision.entities import (
    INJECTED,
    SEARCH_PATH,
    caller_entities,
    context_record,
    covers,
    named,
    target_entities,
    target_uid,
)
from attestd.decision.model import ServerFacts, ToolFacts
from attestd.evidence.model import Origin, Script
from attestd.wire.model import Target
from tests.support.policies import make_context, serve, tool
from tests.support.results import CHAIN, OTHER, PROGRAM, make_evidence, make_file, make_grant, make_link, make_result

TIME = ServerFacts(name="time", transport="stdio")


def process(entities: list[dict[str, Any]]) -> dict[str, Any]:
    """The process among the entities."""
    (found,) = [entity for entity in entities if entity["uid"]["type"] == "Process"]
    return found


def parents(entity: dict[str, Any]) -> set[tuple[str, str]]:
    """Its parents as pairs."""
    return {(parent["type"], parent["id"]) for parent in entity["parents"]}


def test_plain_caller():
    """A caller is in its user, program, chain and image, and every parent exists."""
    entities = caller_entities(make_result(), make_evidence(), "h1")
    found = process(entities)
    assert parents(found) == {
        ("User", "1000"),
        ("Program", f"sha256:{PROGRAM}"),
        ("Chain", f"sha256:{CHAIN}"),
        ("Host", "h1"),
        ("Exe", "sha256:" + "ef" * 32),
    }
    ids = {(entity["uid"]["type"], entity["uid"]["id"]) for entity in entities}
    assert parents(found) <= ids
    assert len(ids) == len(entities)
    assert found["attrs"]["attest_level"] == 2
    assert "package" not in found["attrs"]


def test_unreadable_image_has_the_worse_values():
    """What could not be read counts as writable, deleted and in memory, and has no digest."""
    found = process(caller_entities(make_result(), make_evidence(make_link(exe=None)), ""))
    attributes = found["attrs"]
    assert attributes["exe_writable"] and attributes["exe_deleted"] and attributes["exe_memfd"]  # noqa: PT018 - one fact
    assert "exe_sha256" not in attributes
    assert not {kind for kind, _ in parents(found)} & {"Exe", "Host"}


def test_script_package_and_launchers():
    """Script, verified package, origin and launchers become attributes and parents."""
    origin = Origin(kind="npm", name="@a/b", version="1", verified=True)
    script = Script(kind="script", interpreter="node", sha256=OTHER, file=make_file(path="/x.js"), origin=origin)
    launchers = (Launcher(program=None, display="?"), Launcher(program=OTHER, display="x", build_step=True))
    result = make_result(package="npm:@a/b@1", launchers=launchers)
    found = process(caller_entities(result, make_evidence(make_link(script=script)), ""))
    attributes = found["attrs"]
    assert {("Script", f"sha256:{OTHER}"), ("Package", "npm:@a/b")} <= parents(found)
    assert attributes["package"] == {"__entity": {"type": "Package", "id": "npm:@a/b"}}
    assert attributes["origin"] == {"kind": "npm", "name": "@a/b", "version": "1", "verified": True}
    assert attributes["launchers"] == sorted([OTHER, "unreadable"])
    assert attributes["build_step"] is True
    assert (attributes["script_kind"], attributes["script_path"], attributes["interpreter"]) == (
        "script",
        "/x.js",
        "node",
    )
    assert attributes["script_writable"] is False


def test_script_without_file_is_writable():
    """Inline code and standard input count as writable by the caller."""
    script = Script(kind="stdin", interpreter="python")
    found = process(caller_entities(make_result(), make_evidence(make_link(script=script)), ""))
    assert found["attrs"]["script_writable"] is True


def test_every_link_up_to_the_accountable_counts():
    """Posture and tracing anywhere between socket and accountable client count, beyond it not."""
    chain = make_evidence(make_link(posture=("env LD_PRELOAD",)), make_link(), make_link(tracer_pid=3))
    near = process(caller_entities(make_result(accountable=1), chain, ""))["attrs"]
    assert (near["posture"], near["traced"]) == (["env LD_PRELOAD"], False)
    far = process(caller_entities(make_result(accountable=2), chain, ""))["attrs"]
    assert far["traced"] is True


@pytest.mark.parametrize(("code", "attribute"), [(INJECTED, "injected"), (SEARCH_PATH, "search_path")])
def test_injection_is_what_appraisal_says(code: str, attribute: str):
    """Whether posture loads code is appraisal's word, under codes that appraisal has."""
    clean = process(caller_entities(make_result(), make_evidence(), ""))["attrs"]
    marked = process(caller_entities(make_result(reasons=(reason(code),)), make_evidence(), ""))["attrs"]
    assert (clean[attribute], marked[attribute]) == (False, True)


def test_target_has_the_groups_of_the_grants_that_name_it():
    """A target's parents are its server and exactly the grants that cover it; the server is in no group."""
    grants = [make_grant(), make_grant(id="g2", tools=("*",)), make_grant(id="g3", server="x", tools=("*",))]
    what = named(tool("get_all"))
    assert what is not None
    server, target = target_entities(TIME, what, ToolFacts(), grants)
    assert server["parents"] == []
    assert parents(target) == {("MCP", "time"), ("Group", "grant:g2")}
    assert target["uid"] == target_uid(TIME, what) == {"type": "Tool", "id": "time/get_all"}


def test_server_itself():
    """Connecting is about the server, in no group and without another entity."""
    what = named(serve("pass"))
    assert what is not None
    assert (what.action, what.type) == ("connect", "MCP")
    assert target_entities(TIME, what, ToolFacts(), [make_grant()]) == [
        {"uid": {"type": "MCP", "id": "time"}, "attrs": {"transport": "stdio"}, "parents": []}
    ]


@pytest.mark.parametrize(
    ("uri", "scheme"), [("FILE:///x", "file"), ("mailto:a@b", "mailto"), ("no-scheme", ""), (":x", "")]
)
def test_scheme(uri: str, scheme: str):
    """The scheme is what comes before the first colon, in lower case."""
    what = named(Target(action="read_resource", kind="resource", name=uri))
    assert what is not None
    assert target_entities(TIME, what, ToolFacts(), [])[1]["attrs"] == {"uri": uri, "scheme": scheme}


@pytest.mark.parametrize(
    ("target", "known"),
    [
        (tool("x" * 1024), True),
        (tool("x" * 1025), False),
        (tool(""), False),
        (Target(action="read_resource", kind="resource", name="x" * 8192), True),
        (Target(action="read_resource", kind="resource", name="x" * 8193), False),
        (Target(action="call_tool", kind="prompt", name="x"), False),
        (Target(action="nosuch", kind="tool", name="x"), False),
        (Target(action="list_roots", kind="anything", name="ignored"), True),
    ],
)
def test_known_and_bounded(target: Target, known: bool):
    """Only targets of the schema, with names within their caps, are decided about."""
    assert (named(target) is not None) is known


def test_covers_is_per_kind():
    """A tool pattern covers no prompt, and a star covers no server request."""
    wide = make_grant(tools=("*",))
    for target, expected in ((tool("x"), True), (Target(action="get_prompt", kind="prompt", name="x"), False)):
        what = named(target)
        assert what is not None
        assert covers(wide, what) is expected
    asked = named(serve("elicit"))
    assert asked is not None
    assert not covers(make_grant(server_requests=("*",)), asked)


def test_context_has_the_fields_of_the_schema():
    """The record has every attribute once, the time as Cedar's datetime."""
    record = context_record(make_context(), "2027-01-15T08:00:00.000Z")
    assert record["now"] == {"__extn": {"fn": "datetime", "arg": "2027-01-15T08:00:00.000Z"}}
    assert len(record) == 8
