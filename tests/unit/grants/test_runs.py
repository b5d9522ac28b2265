"""What the accountable program is made of."""

from __future__ import annotations

import pytest

from attestd.evidence.model import Script
from attestd.grants.runs import runs
from tests.support.results import make_evidence, make_file, make_link, make_result


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (None, "image"),
        (Script(kind="script", interpreter="python", sha256="aa"), "script"),
        (Script(kind="module", interpreter="python", sha256="aa"), "module"),
        (Script(kind="script", interpreter="python"), "unresolved"),
        (Script(kind="inline", interpreter="python", sha256="aa"), "inline"),
        (Script(kind="stdin", interpreter="python"), "stdin"),
        (Script(kind="none", interpreter="python"), "none"),
    ],
)
def test_kinds(script: Script | None, expected: str):
    """An image without a script, else the script's kind; unreadable code is unresolved."""
    assert runs(make_evidence(make_link(script=script)), make_result()) == expected


def test_unreadable_image():
    """An image that could not be hashed fixes nothing."""
    for exe in (None, make_file(sha256=None)):
        assert runs(make_evidence(make_link(exe=exe)), make_result()) == "unresolved"


def test_the_accountable_link_counts():
    """The link that is accountable is asked, not the peer."""
    chain = make_evidence(make_link(), make_link(script=Script(kind="stdin", interpreter="python")))
    assert runs(chain, make_result(accountable=1)) == "stdin"
