"""Exit codes, errors, help, start-up time and escaping: what every command has in common."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from attestd.cli.command import LazyGroup
from attestd.cli.main import attestctl, run
from tests.support.control_instance import Installation
from tests.support.terminal import on_terminal

DANGEROUS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
LOOKING = (
    ("status",),
    ("doctor",),
    ("inspect", "--self"),
    ("ps",),
    ("pending",),
    ("grants", "list"),
    ("grants", "show", "g-1"),
    ("servers", "list"),
    ("servers", "show", "time"),
    ("explain", "d-1"),
    ("why", "--server", "time", "--tool", "x"),
    ("audit", "tail"),
    ("audit", "query"),
    ("audit", "verify"),
)


def commands(group: click.Group = attestctl, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words."""
    context = click.Context(group)
    found: list[tuple[tuple[str, ...], click.Command]] = [(path, group)]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [((*path, name), command)]
    return found


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_every_command_answers_people(looking: Installation, words: tuple[str, ...]) -> None:
    """Data is on standard output, nothing on standard error, and no escape sequence where there is no terminal."""
    result = looking.run(*words)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout
    assert not DANGEROUS.search(result.stdout)


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_every_command_answers_scripts(looking: Installation, words: tuple[str, ...]) -> None:
    """With --json each line is one object, in ASCII without control characters."""
    result = looking.run(*words, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert all(isinstance(json.loads(line), dict) for line in result.stdout.splitlines())
    assert result.stdout.isascii()
    assert not DANGEROUS.search(result.stdout)


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_names_from_outside_never_reach_the_terminal_raw(looking: Installation, words: tuple[str, ...]) -> None:
    """On a terminal, too, only our own colours are control sequences, and markup is shown as it is."""
    code, seen = on_terminal(looking, *words)
    assert code == 0
    ours = "\x1b\\[(?:[0-9;]*m|\\?25[hl]|[12]?[AKG]|1A)|\r" if words == ("audit", "verify") else "\x1b\\[[0-9;]*m"
    assert not DANGEROUS.search(re.sub(ours, "", seen))
    assert "\x1b[2J" not in seen
    if words == ("pending",):
        assert "[red]boo[/red]" in seen
        assert ":smile:" in seen
        assert "\\x1b[2J" in seen
        assert "\\u202e" in seen


def test_colour_is_for_terminals_and_not_with_no_color(looking: Installation) -> None:
    """A terminal gets colour, NO_COLOR and a dumb terminal do not, a pipe never does, not even when forced."""
    assert "\x1b[" in on_terminal(looking, "doctor")[1]
    assert "\x1b[" not in on_terminal(looking, "doctor", env={"NO_COLOR": "1"})[1]
    assert "\x1b[" not in looking.run("doctor", env={"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}).stdout
    assert "\x1b[" not in looking.run("nonsense", env={"FORCE_COLOR": "1"}).stderr
    assert "\x1b[" in on_terminal(looking, "nonsense")[1]


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=lambda words: " ".join(words) or "root")
def test_help_ends_with_an_example_that_runs(words: tuple[str, ...], idle: Installation) -> None:
    """The last line of every help is a command line that works as it stands; approving asks, so it has a terminal."""
    example = idle.run(*words, "--help").stdout.splitlines()[-1].strip()
    assert example.startswith(" ".join(("attestctl", *words)))
    typed = shlex.split(example)[1:]
    with idle.daemon(sessions=1, records=3):
        if words == ("servers", "remove"):
            idle.run("servers", "add", "clock", "--", "mcp-server-time")
        if words in (("servers", "seal"), ("servers", "unseal")):
            idle.run("servers", "add", "notes", "--url", "http://127.0.0.1:8765/mcp")
        if words == ("servers", "unseal"):
            idle.run("servers", "seal", "notes")
        code = on_terminal(idle, *typed, answer="y\n")[0] if words == ("approve",) else idle.run(*typed).returncode
    assert code == 0


def test_every_command_is_a_module_of_its_own() -> None:
    """The table of commands names modules that exist, each with a command of that name."""
    assert isinstance(attestctl, LazyGroup)
    names = {words[0] for words, _ in commands() if len(words) == 1}
    assert names == set("status doctor inspect ps pending approve deny grants servers explain why audit reload".split())  # noqa: SIM905 - a list of words


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nonsense",), 2, "no such command 'nonsense'"),
        (("aprove",), 2, "no such command 'aprove'. Did you mean 'approve'?"),
        (("servers", "lst"), 2, "no such command 'lst'. Did you mean 'list'?"),
        (("servers", "--lst"), 2, "no such option"),
        (("status", "--nonsense"), 2, "no such option"),
        (("inspect",), 2, "exactly one of --pid N and --self"),
        (("inspect", "--self", "--pid", "1"), 2, "exactly one of --pid N and --self"),
        (("inspect", "--pid", "zero"), 2, "not a valid integer"),
        (("inspect", "--pid", "1"), 9, "cannot find pid 1"),
        (("deny",), 2, "missing argument"),
        (("grants", "show", "g-99"), 9, "cannot find the grant"),
        (("grants", "revoke", "g-99"), 9, "cannot find the grant"),
        (("grants", "list", "--unused", "soon"), 2, "cannot read the duration"),
        (("grants", "renew", "g-1", "--for", "ever"), 2, "expected one of"),
        (("servers", "show", "none"), 9, "cannot find the server"),
        (("servers", "add", "time"), 3, "the name is taken"),
        (("servers", "add", "x", "--env", "noequals"), 2, "expected NAME=VALUE"),
        (("servers", "add", ""), 2, "cannot read the request"),
        (("why", "--server", "t", "--tool", "a", "--prompt", "b"), 2, "at most one of"),
        (("explain", "d-99"), 9, "cannot find the decision"),
        (("audit", "query", "--since", "yesterday"), 2, "cannot read the time"),
        (("audit", "verify", "--key", "k"), 2, "need --directory"),
        (("audit", "verify", "--directory", "/nonexistent"), 3, "/nonexistent"),
        (("approve", "7F3K-9QRT"), 2, "standard input is not a terminal"),
        (("approve", "XXXX-XXXX", "--yes"), 9, "cannot find a client with this code"),
    ],
)
def test_errors_have_an_exit_code_a_line_and_no_data(
    looking: Installation, words: tuple[str, ...], code: int, says: str
) -> None:
    """Each error is ``error:`` in lower case on standard error, with the exit code of the table."""
    result = looking.run(*words)
    assert (result.returncode, result.stdout) == (code, "")
    first = result.stderr.splitlines()[0]
    assert first.startswith("error: ")
    assert says in first


def test_an_error_carries_its_hint(looking: Installation) -> None:
    """What to do comes on a line of its own."""
    assert looking.run("grants", "show", "g-99").stderr.splitlines()[1] == "hint: see: attestctl grants list"


def test_words_from_outside_in_an_error_are_escaped(looking: Installation) -> None:
    """An error that quotes hostile words does not let them at the terminal."""
    result = looking.run("servers", "show", "a\x1b[2J\u202eb")
    assert result.returncode == 9
    assert not DANGEROUS.search(result.stderr)


def test_invalid_utf_8_is_a_usage_error(looking: Installation) -> None:
    """Bytes that are not text are refused on this side."""
    result = subprocess.run(
        [os.fsencode(looking.attestctl), b"servers", b"show", b"\xff"],
        env=looking.environment(),
        capture_output=True,
        check=False,
    )
    assert result.returncode == 2
    assert b"UTF-8" in result.stderr


def test_no_daemon_is_exit_code_5_with_how_to_start_it(idle: Installation) -> None:
    """Nothing there: where it looked, and what to do."""
    result = idle.run("status")
    assert (result.returncode, result.stdout) == (5, "")
    assert str(idle.socket) in result.stderr
    assert "hint: start it with: attestd run --user" in result.stderr


def test_an_impostor_is_exit_code_5(idle: Installation) -> None:
    """A program of ours that listens at the daemon's place is not spoken to."""
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(str(idle.socket))
        impostor.listen()
        result = idle.run("approve", "7F3K-9QRT", "--yes")
        connection, _ = impostor.accept()
        with connection:
            assert connection.recv(100) == b""
    assert result.returncode == 5
    assert "not the attestd of this installation" in result.stderr


@pytest.mark.root
@pytest.mark.root
def test_a_socket_of_another_user_is_exit_code_5(idle: Installation) -> None:
    """A socket that somebody else put there is not spoken to."""
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(idle.socket))
        theirs.listen()
        os.chown(idle.socket, 12345, 12345)
        result = idle.run("status")
    assert result.returncode == 5
    assert "12345" in result.stderr


def test_a_daemon_that_stops_answering_is_exit_code_5(idle: Installation) -> None:
    """A stopped daemon costs the timeout, not for ever."""
    with idle.daemon() as process:
        process.send_signal(19)
        try:
            result = idle.run("--timeout", "0.5", "status")
        finally:
            process.send_signal(18)
    assert result.returncode == 5
    assert "said nothing for 0.5 s" in result.stderr


def test_a_bug_of_the_daemon_is_exit_code_8(idle: Installation) -> None:
    """The daemon's mistake is told as such, without its inside."""
    with idle.daemon(bug=True):
        result = idle.run("status")
    assert result.returncode == 8
    assert "attestd made a mistake" in result.stderr


def test_a_bug_of_ours_is_exit_code_8(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An exception that nobody expected is one line with its place, not a traceback."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("impossible\x1b[2J")

    monkeypatch.setattr("attestd.control.client.ControlClient.stream", broken)
    assert run(["status"]) == 8
    said = capsys.readouterr().err
    assert "RuntimeError: impossible\\x1b[2J at test_main.py:" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("words", [(), ("grants",), ("audit",), ("servers",)])
def test_a_group_without_a_command_shows_help(looking: Installation, words: tuple[str, ...]) -> None:
    """Typing too little is a usage error that shows what there is."""
    result = looking.run(*words)
    assert result.returncode == 2
    assert "Commands:" in result.stderr + result.stdout


def test_the_version_is_told(looking: Installation) -> None:
    """Name and version on one line."""
    assert looking.run("--version").stdout.startswith("attestctl 0.")


def test_completion_knows_commands_and_lifetimes(looking: Installation) -> None:
    """The shell completes commands, and the words of --for."""
    for words, number, expected in (("attestctl ", 1, "approve"), ("attestctl approve X --for s", 4, "standing")):
        env = {"_ATTESTCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        assert expected in looking.run(env=env).stdout


def test_an_interrupted_follower_ends_well(fresh: Installation) -> None:
    """Ctrl-C is how following ends: exit code 0."""
    process = subprocess.Popen(
        # tests that were started in the background inherit an ignored SIGINT
        ["env", "--default-signal=INT", str(fresh.attestctl), "audit", "tail", "--follow"],
        env=fresh.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "#0 decision" in process.stdout.readline()
    process.send_signal(2)
    _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (0, "")


def test_a_closed_pipe_is_no_traceback(looking: Installation) -> None:
    """``attestctl … | head -1`` ends quietly."""
    command = f"{shlex.quote(str(looking.attestctl))} audit query | head -1"
    result = subprocess.run(
        ["bash", "-c", command], env=looking.environment(), capture_output=True, text=True, check=False
    )
    assert result.stdout.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_starting_is_fast(looking: Installation) -> None:
    """The median of five complete questions, process start included, is far below what a person notices."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        assert looking.run("status", "--json").returncode == 0
        took.append(time.perf_counter() - began)
    assert statistics.median(took) < 0.6


def test_json_does_not_load_rich(tmp_path: Path) -> None:
    """Scripts do not pay for drawing: neither rich nor asyncio is imported until something is drawn."""
    code = (
        "import sys\nfrom attestd.cli.main import run\n"
        f"run(['--socket', {str(tmp_path / 'none')!r}, 'status', '--json'])\n"
        "print(sorted({'rich', 'asyncio', 'cryptography', 'psutil'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
