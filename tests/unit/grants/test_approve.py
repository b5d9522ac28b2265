"""From a waiting request and options to a grant."""

from __future__ import annotations

from typing import Any

import pytest

from attestd.appraisal.model import AttestationResult, CallerKind, Launcher
from attestd.errors import NotPermittedError, UsageError
from attestd.grants.approve import Options, approve, identity, notes, warnings
from attestd.grants.match import match
from attestd.grants.model import Grant, Pending
from tests.support.results import INSTANCE, NOW, OTHER, PROGRAM, SESSION, make_grant, make_pending, make_result

EVIL = Launcher(program=OTHER, display="evil.sh")
UNREAD = Launcher(program=None, display="unreadable (uid 1000)")
BUILD = Launcher(program="ee" * 32, display="npm postinstall", build_step=True)


def grant_of(pending: Pending, **options: Any) -> Grant:
    """Approve by root at NOW."""
    return approve(pending, Options(**options), grant_id="g1", now_ns=NOW, approved_by="root", how="root")


def test_default_is_exactly_what_was_wanted():
    """Without options the grant names the wanted things, the exact program, and lasts until the binary changes."""
    pending = make_pending(None, ("initialize", ""), ("tools/call", "get"), ("resources/read", "file:///a?b"))
    grant = grant_of(pending)
    assert grant.object.tools == ("get",)
    assert grant.object.resources == ("=file:///a?b",)
    assert grant.object.prompts == ()
    assert grant.object.server_requests == ()
    assert (grant.subject.program_kind, grant.subject.program) == ("exact", PROGRAM)
    assert (grant.min_level, grant.lifetime.kind, grant.origin) == (1, "binary", "7F3K-9QRT")
    assert match(identity(pending), "time", [grant], NOW).linked == (grant,)
    assert notes(pending, Options(), grant) == ()


def test_connection_only_grants_everything_but_server_requests():
    """Where nothing was wanted by name, the whole server is granted and the notes say so."""
    pending = make_pending(None, ("initialize", ""), ("tools/list", ""))
    grant = grant_of(pending)
    assert (grant.object.tools, grant.object.resources, grant.object.prompts) == (("*",), ("*",), ("*",))
    assert grant.object.server_requests == ()
    assert "every tool, resource and prompt of time" in notes(pending, Options(), grant)[0]
    assert notes(pending, Options(tools=("get",)), grant_of(pending, tools=("get",))) == ()


def test_a_tool_called_star_is_not_every_tool():
    """Approving a refused call of a tool named * grants that name only."""
    assert grant_of(make_pending(None, ("tools/call", "*"))).object.tools == ("=*",)


def test_nothing_that_can_be_named():
    """A request that left no name needs the person to give one."""
    with pytest.raises(UsageError, match="nothing that was asked for can be named"):
        grant_of(make_pending(None, ("tools/call", "")))
    assert grant_of(make_pending(), all_tools=True).object.tools == ("*",)


def test_named_objects_replace_the_wanted():
    """Options name the object completely; doubles are dropped."""
    grant = grant_of(
        make_pending(None, ("tools/call", "get")),
        tools=("a*", "a*"),
        prompts=("p",),
        server_requests=("sampling", "roots/list"),
    )
    assert grant.object.tools == ("a*",)
    assert grant.object.prompts == ("p",)
    assert grant.object.server_requests == ("sampling/createMessage", "roots/list")


@pytest.mark.parametrize("options", [{"tools": ("",)}, {"resources": ("=",)}, {"server_requests": ("shutdown",)}])
def test_objects_that_do_not_fit(options: dict[str, Any]):
    """Empty names and unknown server requests are refused."""
    with pytest.raises(UsageError):
        grant_of(make_pending(), **options)


@pytest.mark.parametrize("result", [make_result(level=0), make_result(kind=CallerKind.ORPHAN)])
def test_level_zero_cannot_be_approved(result: AttestationResult):
    """No option makes a grant of a caller about whom nothing is known."""
    with pytest.raises(NotPermittedError, match="level 0"):
        grant_of(make_pending(result), all_tools=True)


@pytest.mark.parametrize("level", [0, 3, -1])
def test_minimum_level_is_one_to_the_callers(level: int):
    """A minimum that the caller itself misses is refused."""
    with pytest.raises(UsageError, match="cannot demand level"):
        grant_of(make_pending(), all_tools=True, min_level=level)
    assert grant_of(make_pending(), all_tools=True, min_level=2).min_level == 2


def test_interactive_caller():
    """A person at a terminal gets a grant of the interactive kind that ends with the login session."""
    result = make_result(kind=CallerKind.INTERACTIVE, durable=False)
    pending = make_pending(result, ("tools/call", "get"))
    grant = grant_of(pending)
    assert (grant.subject.kind, grant.lifetime.kind, grant.lifetime.key) == ("interactive", "session", SESSION)
    assert match(result, "time", [grant], NOW).linked == (grant,)
    assert any("ends with this login session" in line for line in notes(pending, Options(), grant))


def test_inline_caller():
    """A caller through inline code gets a grant that says so and ends with the login session."""
    result = make_result(inline=True)
    pending = make_pending(result, ("tools/call", "get"))
    grant = grant_of(pending)
    assert grant.subject.inline
    assert grant.lifetime.kind == "session"
    assert match(result, "time", [grant], NOW).linked == (grant,)
    with pytest.raises(NotPermittedError):
        grant_of(pending, lifetime="standing")
    with pytest.raises(NotPermittedError):
        grant_of(make_pending(), all_tools=True, inline=True, lifetime="standing")


@pytest.mark.parametrize("runs", ["stdin", "unresolved", "none", ""])
def test_unknown_code_is_for_this_process(runs: str):
    """A digest that does not fix the code is approved for the shown process only."""
    pending = make_pending(make_result(durable=False), ("tools/call", "get"), runs=runs)
    grant = grant_of(pending)
    assert (grant.lifetime.kind, grant.lifetime.key) == ("process", INSTANCE)
    with pytest.raises(NotPermittedError) as refused:
        grant_of(pending, lifetime="session")
    assert refused.value.hint == "use --for process"


def test_inline_program_is_for_the_session():
    """A program that is inline text is never approved for longer than the login session."""
    pending = make_pending(make_result(durable=False), ("tools/call", "get"), runs="inline")
    assert grant_of(pending).lifetime.kind == "session"
    with pytest.raises(NotPermittedError):
        grant_of(pending, lifetime="binary")


def test_package_and_lineage():
    """A verified package can stand for its versions; without one neither word is allowed."""
    verified = make_result(package="npm:@a/b@1.2", lineage="npm:@a/b /usr/lib")
    pending = make_pending(verified, ("tools/call", "get"))
    by_package, by_lineage = grant_of(pending, program="package"), grant_of(pending, program="lineage")
    assert by_package.subject.program == "npm:@a/b"
    assert by_package.lifetime.kind == "standing"
    assert by_lineage.subject.program == "npm:@a/b /usr/lib"
    update = make_result(package="npm:@a/b@1.3", lineage="npm:@a/b /usr/lib", program=OTHER)
    assert len(match(update, "time", [by_package, by_lineage], NOW).linked) == 2
    for word in ("package", "lineage"):
        with pytest.raises(UsageError, match="no verified package"):
            grant_of(make_pending(make_result(lineage="x"), ("tools/call", "get")), program=word)
    with pytest.raises(UsageError, match="allowed are exact"):
        grant_of(pending, program="name")


def test_present_launchers_are_named():
    """By default the launchers that were there are in the grant, and the notes name them."""
    result = make_result(launchers=(EVIL, BUILD))
    pending = make_pending(result, ("tools/call", "get"))
    grant = grant_of(pending)
    assert grant.subject.launched_by == (OTHER, "ee" * 32)
    assert match(result, "time", [grant], NOW).linked == (grant,)
    lines = notes(pending, Options(), grant)
    assert "the grant also holds when launched by evil.sh, npm postinstall" in lines
    assert "npm postinstall is a build step" in lines


def test_unreadable_launcher_needs_the_word():
    """A launcher that could not be read is accepted by its word only."""
    result = make_result(launchers=(EVIL, UNREAD))
    pending = make_pending(result, ("tools/call", "get"))
    with pytest.raises(UsageError) as refused:
        grant_of(pending)
    assert "--launched-by unreadable" in refused.value.hint
    grant = grant_of(pending, launched_by=("unreadable", "evil.sh"))
    assert set(grant.subject.launched_by) == {"unreadable", OTHER}
    (warning,) = warnings(grant)
    assert "whoever it is" in warning
    assert warning in notes(pending, Options(launched_by=("unreadable", "evil.sh")), grant)
    assert warnings(make_grant()) == ()
    assert match(result, "time", [grant], NOW).linked == (grant,)


def test_clean_chain_only():
    """``any-interactive`` grants the program without the launcher that was present."""
    result = make_result(launchers=(EVIL,))
    grant = grant_of(make_pending(result, ("tools/call", "get")), launched_by=("any-interactive",))
    assert grant.subject.launched_by == ()
    assert match(result, "time", [grant], NOW).linked == ()
    assert match(make_result(), "time", [grant], NOW).linked == (grant,)


def test_launcher_words():
    """Digests by a long enough prefix, or in full for programs that are not there."""
    pending = make_pending(make_result(launchers=(EVIL,)), ("tools/call", "get"))
    assert grant_of(pending, launched_by=(OTHER[:8],)).subject.launched_by == (OTHER,)
    assert grant_of(pending, launched_by=("aa" * 32,)).subject.launched_by == ("aa" * 32,)
    for word in (OTHER[:7], "nobody", "", "AA" * 32):
        with pytest.raises(UsageError, match="cannot find the launcher"):
            grant_of(pending, launched_by=(word,))


def test_identity_is_kept():
    """The grant remembers who was approved, for the difference after an update."""
    grant = grant_of(make_pending(make_result(launchers=(EVIL,)), ("tools/call", "get")))
    assert grant.identity is not None
    assert (grant.identity.title, grant.identity.program, grant.identity.launchers) == (
        "client.py",
        PROGRAM,
        ("evil.sh",),
    )
