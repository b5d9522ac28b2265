"""Commands that a page, a help text or a message shows are commands that there are."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator

import click
import pytest

from attestd.cli.main import attestctl
from attestd.daemon.main import main as attestd
from attestd.shim import UsageError, parse
from tests.support.repository import ROOT, files, name

ROOTS: dict[str, click.Command] = {"attestctl": attestctl, "attestd": attestd}
PAGES = ["README.md", "SECURITY.md", "CONTRIBUTING.md", *(name(path) for path in files(".md", below="docs"))]
PLACEHOLDERS = {"N": "1", "--pid=N": "--pid=1"}
SPOKEN = re.compile(r"(?:^|: |\bsee )((?:attestctl|attestd) [^\n]+)")
"""How a message says what to run."""
PROSE = re.compile(r"attestd (?!(?:run|check-config|demo)(?:$| )|-)|attestctl (?:from|is|made|and|word ended) ")
"""Sentences about a program, and refusals that begin with its name."""


def shown(text: str) -> Iterator[tuple[str, bool]]:
    """Each command line of a page, and whether it must be complete."""
    for line in re.findall(r"^    ((?:attestctl|attestd|attestd-connect) .+)$", text, re.MULTILINE):
        if not PROSE.match(line):
            yield line.removesuffix(" &"), True
    for line in re.findall(r"`((?:attestctl|attestd|attestd-connect) [^`\n]+)`", text):
        yield line, False


def spoken() -> Iterator[tuple[str, str]]:
    """Each command line that a string of the package tells people to run, and where."""
    for path in files(".py", below="attestd"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for text in SPOKEN.findall(words_of(node)):
                for line in re.split(r"[,;]| or | has ", text):
                    if line.strip().startswith(tuple(ROOTS)) and not PROSE.match(line.strip()):
                        yield (
                            line.partition(" <")[0].strip().removesuffix("."),
                            f"{name(path)}:{getattr(node, 'lineno', 0)}",
                        )


def words_of(node: ast.AST) -> str:
    """The text of a string, with a word for what is filled in; docstrings and anything else are empty."""
    if isinstance(node, ast.JoinedStr):
        parts = (str(part.value) if isinstance(part, ast.Constant) else "word" for part in node.values)
        return "".join(parts)
    return (
        node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) and "``" not in node.value else ""
    )


def refuse(line: str, *, complete: bool) -> str:
    """Why the commands do not take this line, or an empty string."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line, comments=True) if not word.startswith("…")]
    try:
        if words[0] == "attestd-connect":
            parse(words[1:])
        else:
            take(ROOTS[words[0]], words[0], words[1:], None)
    except (UsageError, click.UsageError) as error:
        missing = isinstance(error, click.MissingParameter | click.exceptions.NoArgsIsHelpError)
        return "" if missing and not complete else f"{line}: {error}"
    except click.exceptions.Exit:
        return ""
    return ""


def take(command: click.Command, called: str, words: list[str], parent: click.Context | None) -> None:
    """Parse a command line to its end, without running anything. Raises click's usage errors."""
    with command.make_context(called, list(words), parent=parent) as context:
        rest = [*context._protected_args, *context.args] if isinstance(command, click.Group) else []
        if isinstance(command, click.Group) and rest:
            found, child, left = command.resolve_command(context, rest)
            assert child is not None
            take(child, found or "", left, context)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_pages_are_taken(page: str, capsys: pytest.CaptureFixture[str]):
    """Each command line that a page shows is parsed as it stands, options and all."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [why for line, complete in shown(text) if (why := refuse(line, complete=complete))] == []
    capsys.readouterr()


def test_commands_of_messages_are_taken(capsys: pytest.CaptureFixture[str]):
    """Each command line that a message or a help text tells people to run is parsed as it stands."""
    lines = dict(spoken())
    assert len(lines) > 20
    assert [f"{where}: {why}" for line, where in lines.items() if (why := refuse(line, complete=False))] == []
    capsys.readouterr()


def test_wrong_commands_are_found():
    """An unknown command, option or value is named."""
    assert "No such command" in refuse("attestctl servres list", complete=False)
    assert "No such option" in refuse("attestctl approve 7F3K-9QRT --all-tool", complete=False)
    assert "code" in refuse("attestctl approve", complete=True)
    assert refuse("attestctl approve", complete=False) == ""
    assert "unknown option" in refuse("attestd-connect time --sokcet x", complete=False)
