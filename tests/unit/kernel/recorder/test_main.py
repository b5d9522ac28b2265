"""The command: its words, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from attestd.errors import NotPermittedError
from attestd.kernel.linux.recorder import main as command
from attestd.kernel.linux.recorder.load import Loaded

NOWHERE = "/sys/fs/bpf/there-is-no-such-recorder"


def test_help_names_the_rights():
    """Every command has a help text with an example; load says what it needs."""
    for words in (["--help"], ["load", "--help"], ["unload", "--help"], ["status", "--help"]):
        shown = CliRunner().invoke(command.main, words)
        assert shown.exit_code == 0
        assert "Example: sudo attestd-recorder" in shown.output
    assert "CAP_PERFMON" in CliRunner().invoke(command.main, ["load", "--help"]).output


@pytest.mark.root
def test_status_of_nothing():
    """It is absent: an answer, not an error."""
    shown = CliRunner().invoke(command.main, ["status", "--pin", NOWHERE, "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.output) == {"state": "absent", "reason": "the kernel recorder is not loaded"}


def test_unload_of_nothing():
    """There is nothing to do: 9."""
    assert CliRunner().invoke(command.main, ["unload", "--pin", NOWHERE]).exit_code == 9


def test_a_wrong_place(tmp_path: Path):
    """A directory outside the BPF file system is refused with a reason."""
    shown = CliRunner().invoke(command.main, ["load", "--pin", str(tmp_path / "x")])
    assert shown.exit_code == 1
    assert "not in a BPF file system" in shown.output


def test_a_group_that_does_not_exist():
    """It is named: 2."""
    shown = CliRunner().invoke(command.main, ["load", "--pin", NOWHERE, "--group", "no-such-group"])
    assert shown.exit_code == 2
    assert "cannot find group 'no-such-group'" in shown.output


def test_missing_rights(monkeypatch: pytest.MonkeyPatch):
    """They end with 4, with what is needed."""

    def refuse(*_: object, **__: object) -> Loaded:
        raise NotPermittedError("cannot load it", hint="it needs CAP_BPF")

    monkeypatch.setattr(command, "load_recorder", refuse)
    shown = CliRunner().invoke(command.main, ["load"])
    assert shown.exit_code == 4
    assert "it needs CAP_BPF" in shown.output


@pytest.mark.parametrize(
    ("changed", "carried", "expected"),
    [
        (False, True, "the recorder is loaded already: build abababababab"),
        (True, True, "what the older one remembered is kept"),
        (True, False, "without connect_unix: this kernel has none"),
    ],
)
def test_what_load_says(monkeypatch: pytest.MonkeyPatch, changed: bool, carried: bool, expected: str):
    """Whether something changed, what was kept, and what was left out."""
    done = Loaded(
        build="ab" * 32,
        features=("connect4",),
        left_out={"connect_unix": "this kernel has none"},
        carried_over=carried,
        changed=changed,
    )
    monkeypatch.setattr(command, "load_recorder", lambda *_, **__: done)
    assert expected in CliRunner().invoke(command.main, ["load"]).output
