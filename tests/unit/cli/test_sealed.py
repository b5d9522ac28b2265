"""What doctor says of sealed servers when their daemon is away."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestd.cli.sealed import left_sealed


def test_what_the_state_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning for each, with the command that opens it; an unreadable state is passed over."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert list(left_sealed()) == []
    file = tmp_path / "attestd" / "seals.json"
    file.parent.mkdir()
    file.write_text('[{"server":"notes","port":8765,"how":"redirect"}]')
    (check,) = left_sealed()
    assert (check.name, check.status) == ("seal notes", "warn")
    assert "8765" in check.detail
    assert "attestd unseal --all" in check.remedy
    file.write_text("no json")
    assert list(left_sealed()) == []


def test_the_usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the XDG variable it is below the home directory."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = tmp_path / ".local" / "state" / "attestd"
    directory.mkdir(parents=True)
    (directory / "seals.json").write_text('[{"server":"a","port":1}]')
    assert [check.name for check in left_sealed()] == ["seal a"]
