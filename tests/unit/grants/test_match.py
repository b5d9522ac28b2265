"""Which grants hold for a caller."""

from __future__ import annotations

import msgspec
import pytest

from attestd.appraisal.model import CallerKind, Launcher
from attestd.errors import Cause
from attestd.grants.match import (
    CLAUSES,
    LIFETIMES,
    PRECEDENCE,
    covers_launchers,
    ended,
    first_failure,
    match,
    owns,
    package_name,
)
from tests.support.results import INSTANCE, MINUTE, NOW, OTHER, SESSION, make_grant, make_result

EVIL = Launcher(program=OTHER, display="evil.sh")
UNREAD = Launcher(program=None, display="unreadable")


def test_own_grant_links():
    """A standing grant of the caller's program on the server holds."""
    found = match(make_result(), "time", [make_grant()], NOW)
    assert [grant.id for grant in found.linked] == ["g1"]
    assert found.rejected == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": 1001},
        {"program": OTHER},
        {"program": ""},
        {"program_kind": "name"},
        {"kind": "interactive"},
        {"server": "other"},
    ],
)
def test_other_grants_are_not_mentioned(changes: dict[str, str]):
    """A grant of another uid, program, kind or server is neither linked nor rejected."""
    found = match(make_result(), "time", [make_grant(**changes)], NOW)
    assert found.linked == ()
    assert found.rejected == ()


@pytest.mark.parametrize("result", [make_result(level=0), make_result(kind=CallerKind.ORPHAN)])
def test_unattestable_holds_nothing(result: object):
    """Level 0 and orphans match no grant, whatever it says."""
    found = match(result, "time", [make_grant(min_level=0)], NOW)  # type: ignore[arg-type]
    assert found.linked == ()
    assert [rejected.cause for rejected in found.rejected] == [Cause.UNATTESTABLE]


@pytest.mark.parametrize(
    ("launchers", "accepted", "stranger"),
    [
        ((), (), None),
        ((EVIL,), (), "evil.sh"),
        ((EVIL,), (OTHER,), None),
        ((UNREAD,), (OTHER,), "unreadable"),
        ((UNREAD,), ("unreadable",), None),
        ((EVIL, UNREAD), (OTHER,), "unreadable"),
        ((EVIL,), ("unreadable",), "evil.sh"),
        ((EVIL, UNREAD), (OTHER, "unreadable"), None),
    ],
)
def test_every_launcher_is_named(launchers: tuple[Launcher, ...], accepted: tuple[str, ...], stranger: str | None):
    """Each launcher must be in the grant; an unreadable one only by that word."""
    result = make_result(launchers=launchers)
    assert covers_launchers(result, accepted) == stranger
    found = match(result, "time", [make_grant(launched_by=accepted)], NOW)
    assert [rejected.cause for rejected in found.rejected] == ([Cause.LAUNCHER] if stranger else [])
    assert len(found.linked) == (stranger is None)


def test_launcher_that_calls_itself_unreadable():
    """A launcher whose program is empty is not accepted by an empty list."""
    odd = make_result(launchers=(Launcher(program="", display="odd"),))
    assert covers_launchers(odd, ()) == "odd"


@pytest.mark.parametrize(("level", "minimum", "holds"), [(1, 1, True), (1, 2, False), (4, 4, True), (4, 5, False)])
def test_minimum_level(level: int, minimum: int, holds: bool):
    """The caller's level must reach the grant's minimum."""
    found = match(make_result(level=level), "time", [make_grant(min_level=minimum)], NOW)
    assert bool(found.linked) is holds
    assert [rejected.cause for rejected in found.rejected] == ([] if holds else [Cause.LEVEL_TOO_LOW])


@pytest.mark.parametrize(
    ("life", "cause"),
    [
        ({"lifetime": "standing"}, None),
        ({"lifetime": "binary"}, None),
        ({"lifetime": "once"}, None),
        ({"lifetime": "once", "revoked_ns": NOW}, Cause.EXPIRED),
        ({"lifetime": "standing", "revoked_ns": NOW}, Cause.EXPIRED),
        ({"lifetime": "process", "key": INSTANCE}, None),
        ({"lifetime": "process", "key": "boot/4711/2"}, Cause.EXPIRED),
        ({"lifetime": "process", "key": None}, Cause.EXPIRED),
        ({"lifetime": "session", "key": SESSION}, None),
        ({"lifetime": "session", "key": "boot/other"}, Cause.EXPIRED),
        ({"lifetime": "session", "key": ""}, Cause.EXPIRED),
        ({"lifetime": "until", "until_ns": NOW + 1}, None),
        ({"lifetime": "until", "until_ns": NOW}, Cause.EXPIRED),
        ({"lifetime": "until", "until_ns": None}, Cause.EXPIRED),
        ({"lifetime": "until", "until_ns": NOW + MINUTE, "created_ns": NOW + 1}, Cause.EXPIRED),
        ({"lifetime": "until", "until_ns": NOW + 1, "key": "boot/other"}, Cause.EXPIRED),
        ({"lifetime": "for ever"}, Cause.NO_GRANT),
    ],
)
def test_lifetimes(life: dict[str, object], cause: Cause | None):
    """Each lifetime holds exactly as long as it says; an unknown one never does."""
    found = match(make_result(), "time", [make_grant(**life)], NOW)
    assert [rejected.cause for rejected in found.rejected] == ([] if cause is None else [cause])
    assert bool(found.linked) is (cause is None)


def test_empty_instance_and_session_match_nothing():
    """A missing key is not equal to a missing fact."""
    bare = make_result(instance="", login_session="")
    for kind in ("process", "session"):
        assert match(bare, "time", [make_grant(lifetime=kind, key="")], NOW).linked == ()


@pytest.mark.parametrize("changes", [{"kind": CallerKind.INTERACTIVE}, {"inline": True}, {"durable": False}])
@pytest.mark.parametrize(
    ("life", "holds"),
    [
        ({"lifetime": "standing"}, False),
        ({"lifetime": "binary"}, False),
        ({"lifetime": "until", "until_ns": NOW + 1}, False),
        ({"lifetime": "until", "until_ns": NOW + 1, "key": SESSION}, True),
        ({"lifetime": "once"}, False),
        ({"lifetime": "once", "key": SESSION}, True),
        ({"lifetime": "session", "key": SESSION}, True),
        ({"lifetime": "process", "key": INSTANCE}, True),
    ],
)
def test_passing_callers_need_bound_grants(changes: dict[str, object], life: dict[str, object], holds: bool):
    """Interactive, inline and unknown-code callers match only grants that end with the login session."""
    result = make_result(**changes)
    kind = "interactive" if result.kind is CallerKind.INTERACTIVE else "program"
    grant = make_grant(kind=kind, inline=True, **life)
    assert bool(match(result, "time", [grant], NOW).linked) is holds


def test_inline_needs_the_word():
    """A call through inline code is refused by a grant that does not accept it."""
    grant = make_grant(lifetime="session", key=SESSION)
    found = match(make_result(inline=True), "time", [grant], NOW)
    assert [rejected.cause for rejected in found.rejected] == [Cause.INLINE]


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("npm:@anthropic-ai/claude-code@2.1.328", "npm:@anthropic-ai/claude-code"),
        ("dpkg:curl@7.88", "dpkg:curl"),
        ("npm:@scope/name", ""),
        ("npm:@1.0", ""),
        ("curl", ""),
        ("", ""),
        ("@", ""),
        ("npm:x@", ""),
    ],
)
def test_package_name(package: str, name: str):
    """A package is known by name only if kind, name and version are all there."""
    assert package_name(package) == name


def test_package_and_lineage_need_a_verified_package():
    """Grants by package or lineage hold only while a verified package vouches for the program."""
    by_package = make_grant(program_kind="package", program="npm:tool")
    by_lineage = make_grant(program_kind="lineage", program="npm:tool /usr/lib")
    verified = make_result(package="npm:tool@2", lineage="npm:tool /usr/lib")
    bare = make_result(package="", lineage="npm:tool /usr/lib")
    assert owns(verified, by_package)
    assert owns(verified, by_lineage)
    assert not owns(bare, by_package)
    assert not owns(bare, by_lineage)
    assert not owns(make_result(package="npm:tool-evil@2"), by_package)


def test_binary_means_exact():
    """A grant until the binary changes does not hold by package."""
    grant = make_grant(program_kind="package", program="npm:tool", lifetime="binary")
    assert match(make_result(package="npm:tool@2"), "time", [grant], NOW).linked == ()


def test_rejected_in_order_of_precedence():
    """Of several failures the most telling comes first, by the literal table."""
    result = make_result(launchers=(EVIL,), level=1)
    grants = [
        make_grant(id="a", launched_by=(OTHER,), lifetime="until", until_ns=1),
        make_grant(id="b", launched_by=(OTHER,), min_level=2),
        make_grant(id="c"),
    ]
    found = match(result, "time", grants, NOW)
    assert [rejected.cause for rejected in found.rejected] == [Cause.LAUNCHER, Cause.LEVEL_TOO_LOW, Cause.EXPIRED]
    assert [rejected.grant_id for rejected in found.rejected] == ["c", "b", "a"]


def test_table_names_every_cause_once():
    """The precedence table has no duplicates and every clause's cause is in it."""
    assert len(set(PRECEDENCE)) == len(PRECEDENCE)
    assert len(CLAUSES) == 7


def test_ended_says_why():
    """A used, revoked, expired or not yet begun grant has its own words."""
    assert ended(make_grant(), NOW) is None
    assert "used up" in (ended(make_grant(lifetime="once", revoked_ns=1), NOW) or "")
    assert "revoked" in (ended(make_grant(revoked_ns=1), NOW) or "")
    assert "expired" in (ended(make_grant(lifetime="until", until_ns=NOW), NOW) or "")
    assert "clock" in (ended(make_grant(lifetime="until", until_ns=NOW + 1, created_ns=NOW + 1), NOW) or "")
    assert {"once", "standing"} <= LIFETIMES


def test_first_failure_follows_the_clauses():
    """The launcher outweighs everything that comes after it."""
    result = make_result(launchers=(EVIL,), inline=True, level=1)
    failed = first_failure(result, make_grant(min_level=3), NOW)
    assert failed is not None
    assert failed[0] is Cause.LAUNCHER


def with_search_path(entry: str):
    """A caller that was started with a code search path."""
    from attestd.appraisal.model import Reason

    caller = make_result()
    return msgspec.structs.replace(caller, reasons=(*caller.reasons, Reason(cap=1, code="search-path", detail=entry)))


def test_search_path_must_be_named():
    """A program started with a search path that its grant does not name is refused with that cause."""
    found = match(with_search_path("env PYTHONPATH=/evil"), "time", [make_grant()], NOW)
    assert [rejected.cause for rejected in found.rejected] == [Cause.SEARCH_PATH]


def test_named_search_path_holds():
    """The search path that was there at approval is accepted, word for word."""
    grant = make_grant()
    named = msgspec.structs.replace(
        grant, subject=msgspec.structs.replace(grant.subject, search_paths=("env PYTHONPATH=/x",))
    )
    assert match(with_search_path("env PYTHONPATH=/x"), "time", [named], NOW).linked == (named,)
    assert not match(with_search_path("env PYTHONPATH=/y"), "time", [named], NOW).linked


def test_shortened_search_path_never_matches():
    """A value that was cut short is not known, so naming it accepts nothing."""
    grant = make_grant()
    cut = "env PYTHONPATH=/x…"
    named = msgspec.structs.replace(grant, subject=msgspec.structs.replace(grant.subject, search_paths=(cut,)))
    assert not match(with_search_path(cut), "time", [named], NOW).linked
