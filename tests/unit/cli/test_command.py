"""Commands are found when they are needed, and none without an example."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from attestd.cli.command import Command, LazyGroup


def test_an_example_is_required() -> None:
    """A command without an example cannot be made."""
    with pytest.raises(TypeError, match="example"):
        Command("x")  # type: ignore[call-arg]


def test_the_example_is_never_wrapped() -> None:
    """It can be copied as one line, however long."""
    example = "attestctl " + "word " * 40 + "end"
    text = Command("x", example=example).get_help(click.Context(click.Command("x"), terminal_width=40))
    assert text.endswith("Example:\n  " + example)


def test_an_unknown_name_is_no_command() -> None:
    """The group says so, and click makes the usage error."""
    group = LazyGroup("x", modules={}, example="x")
    assert group.get_command(click.Context(group), "y") is None


def test_only_the_command_that_runs_is_imported() -> None:
    """The root does not import its commands."""
    code = "import sys, attestd.cli.main; print([n for n in sys.modules if n.startswith('attestd.cli.a')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
