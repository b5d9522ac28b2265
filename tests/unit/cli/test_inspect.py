"""``attestctl inspect``."""

from __future__ import annotations

from tests.support.control_instance import Installation


def test_the_tree_and_the_identity(looking: Installation) -> None:
    """The chain is a tree, and every digest is whole."""
    shown = looking.run("inspect", "--pid", "77").stdout
    assert "client.py (pid 77, uid 0) host  <- the accountable client" in shown or "(pid 77, uid" in shown
    assert f"program    {'ab' * 32}" in shown
    assert f"chain      {'cd' * 32}" in shown
    assert "at most 1: exe_forgeable" in shown
    assert "The chain ends: init" in shown


def test_self_is_the_asking_process(looking: Installation) -> None:
    """Without a pid the daemon looks at its caller."""
    (inspection,) = looking.json("inspect", "--self")
    assert inspection["peer"]["pid"] == inspection["chain"][0]["pid"]
    assert inspection["accountable"] == 0
