"""Finding programs and explaining failures."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from attestd.launch.find import explain, find_program
from attestd.launch.protocol import Command, LaunchError


def command(name: str, path: str | None) -> Command:
    """A command with that search path."""
    return Command(argv=(name,), env=() if path is None else (("PATH", path),), cwd="/")


def test_only_the_commands_own_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's PATH is not consulted, and without a PATH nothing is found."""
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program(command("server", f"/nowhere:{tmp_path}")) == str(program)
    with pytest.raises(LaunchError, match="PATH=/nowhere"):
        find_program(command("server", "/nowhere"))
    with pytest.raises(LaunchError, match=r"PATH=\(not set\)"):
        find_program(command("server", None))


def test_relative_and_unusable_entries_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative and empty entries, directories and files that cannot be executed are not programs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "server").write_text("")
    (tmp_path / "sub" / "server").mkdir(parents=True)
    with pytest.raises(LaunchError):
        find_program(command("server", f".::{tmp_path}:{tmp_path}/sub"))


def test_a_path_is_taken_as_it_is() -> None:
    """A name with a slash is not searched for."""
    assert find_program(command("./x", "/bin")) == "./x"


@pytest.mark.parametrize(
    ("number", "stage", "text"),
    [
        (errno.ENOENT, "execute /no/such", "cannot execute /no/such: no such file"),
        (errno.ENOENT, "enter /no/such", "cannot enter /no/such: No such file or directory"),
        (errno.EAGAIN, "fork", "cannot fork: Resource temporarily unavailable"),
    ],
)
def test_each_stage_is_named(number: int, stage: str, text: str) -> None:
    """The message names the program, what was being done and the system's reason."""
    assert str(explain("/no/such", number, stage)) == f"cannot start /no/such: {text}"
