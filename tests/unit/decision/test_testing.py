"""The runner of policy tests, and the shipped tests through it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestd.decision.testing import run_tests
from attestd.errors import PolicyInvalidError
from tests.support.policies import POLICY, make_engine

FILES = sorted((POLICY / "tests").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_policy_tests(file: Any):
    """Every shipped case passes under the shipped policies."""
    links = (file.parent / "links" / file.name).read_bytes()
    report = run_tests(make_engine(), file.read_bytes(), links)
    assert [result for result in report.results if not result.passed] == []
    assert report.passed


def test_shipped_tests_cover_every_forbid():
    """Each forbid of the baseline determines at least one shipped case."""
    engine = make_engine()
    reports = [run_tests(engine, file.read_bytes(), (file.parent / "links" / file.name).read_bytes()) for file in FILES]
    covered = frozenset().union(*(report.covered for report in reports))
    forbids = {policy.id.rpartition("/")[2] for policy in engine.policies.values() if policy.effect == "forbid"}
    assert forbids <= covered
    assert len(FILES) >= 1


def case(**changes: Any) -> bytes:
    """The first shipped case, changed, as a file of one."""
    first = json.loads((POLICY / "tests" / "baseline.json").read_bytes())[0]
    return json.dumps([{**first, **changes}]).encode()


LINKS = (POLICY / "tests" / "links" / "baseline.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"decision": "deny"}, "decision allow, expected deny"),
        ({"reason": ["no-traced"]}, "expected ['no-traced'] among them"),
        ({"num_errors": 1}, "0 errors, expected 1"),
        ({"entities": [{"uid": {"type": "Nosuch", "id": "x"}, "attrs": {}, "parents": []}]}, "decision deny"),
    ],
)
def test_failures_say_got_and_expected(changes: dict[str, Any], detail: str):
    """A case that fails says what came instead of what was expected."""
    report = run_tests(make_engine(), case(**changes), LINKS)
    assert not report.passed
    assert detail in report.results[0].detail


def test_without_links_nothing_is_permitted():
    """The templates alone permit nothing."""
    report = run_tests(make_engine(), case(decision="deny", reason=[]))
    assert report.passed


def test_errors_count_as_deny():
    """A case whose policy errs is a deny, as in attestd, with its error counted."""
    engine = make_engine(
        '@id("s") forbid (principal, action, resource) when { context.args_size * 9223372036854775807 > 5 };'
    )
    assert run_tests(engine, case(decision="deny", num_errors=1), LINKS).passed


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'[{"decision": "allow"}]', b"[" * 100_000])
def test_files_that_are_not_tests(text: bytes):
    """An empty, malformed or hostile file is an invalid policy test."""
    with pytest.raises(PolicyInvalidError):
        run_tests(make_engine(), text)


def test_links_that_do_not_fit():
    """A link to an unknown template is refused."""
    link = json.dumps([{"template_id": "nosuch", "link_id": "x", "args": {}}]).encode()
    with pytest.raises(PolicyInvalidError, match="cannot link"):
        run_tests(make_engine(), case(), link)
