"""What changed since the last approval."""

from __future__ import annotations

import msgspec

from attestd.grants.difference import difference
from attestd.grants.model import Grant, Identity
from tests.support.results import CHAIN, OTHER, PROGRAM, make_grant

BEFORE = Identity(
    title="Tool 1.0",
    program=PROGRAM,
    chain=CHAIN,
    level=2,
    package="npm:tool@1.0",
    lineage="npm:tool /usr",
    launchers=("a",),
)


def grant(**changes: object) -> Grant:
    """A grant of BEFORE with the identity changed."""
    return make_grant(identity=msgspec.structs.replace(BEFORE, **changes))


def test_first_time():
    """Without an earlier grant it says so."""
    assert difference(None, grant()) == ("no earlier approval of this program or an earlier version of it",)


def test_grant_without_identity():
    """An earlier grant that does not say who was approved is not compared as if it were equal."""
    assert difference(make_grant(), grant()) == ("an earlier approval exists, but not who was approved then",)


def test_nothing_but_the_same():
    """The same program again is said to be the same byte for byte."""
    assert difference(grant(), grant()) == ("same program, byte for byte",)


def test_update():
    """An update of one installation shows digest, title and package."""
    lines = difference(grant(), grant(program=OTHER, title="Tool 1.1", package="npm:tool@1.1"))
    assert lines == (
        "program: sha256 abababab -> cdcdcdcd",
        "title: Tool 1.0 -> Tool 1.1",
        "package: npm:tool@1.0 -> npm:tool@1.1",
    )


def test_lookalike():
    """A program that shares only the title is called out."""
    old, new = grant(lineage="", package=""), grant(lineage="", package="", program=OTHER, level=1)
    lines = difference(old, new)
    assert "only the title is the same: nothing shows that both come from one installation" in lines
    assert "assurance level: 2 -> 1" in lines


def test_lost_package():
    """A package that is no longer verified is said, not left out."""
    lines = difference(grant(), grant(package="", lineage="", program=OTHER))
    assert "package: npm:tool@1.0 -> none verified" in lines
    assert "installed as: npm:tool /usr -> unknown" in lines


def test_launch_and_objects():
    """Launchers, inline code, objects and the level come with new and no longer."""
    new = make_grant(
        identity=msgspec.structs.replace(BEFORE, launchers=("b",)),
        inline=True,
        tools=("set",),
        prompts=("p",),
        min_level=2,
    )
    assert difference(grant(), new)[1:] == (
        "launched by, new: b",
        "launched by, no longer: a",
        "through inline code, new",
        "tool, new: set",
        "tool, no longer: get",
        "prompt, new: p",
        "minimum level: 1 -> 2",
    )


def test_chain_alone():
    """Another chain without another launcher is still shown."""
    assert "launch chain: 12121212 -> 34343434" in difference(grant(), grant(chain="34" * 32))
