"""Our own programs and their digests."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from attestd.daemon.installation import PROGRAMS, find_installation
from attestd.errors import ConfigurationError


def test_the_programs_beside_the_running_one_are_hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Started as ``attestd``, the directory of that program counts, through links."""
    for name in PROGRAMS:
        (tmp_path / name).write_text(f"#!{name}\n")
    (tmp_path / "link").symlink_to(tmp_path / "attestd")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "link")])
    found = find_installation()
    assert found.scripts == tmp_path
    assert found.script_sha256 == {name: hashlib.sha256(f"#!{name}\n".encode()).hexdigest() for name in PROGRAMS}
    assert found.interpreter_sha256 == hashlib.sha256(Path(sys.executable).resolve().read_bytes()).hexdigest()


def test_an_incomplete_installation_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What is missing is named; half an installation attests nothing."""
    (tmp_path / "attestd").write_text("")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "attestd")])
    with pytest.raises(ConfigurationError, match=r"cannot find attestctl, attestd-connect in"):
        find_installation()


def test_reference_values_and_program_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The shim is the relay, attestctl the command line tool, and a program's digest is that of the digest's definition."""
    for name in PROGRAMS:
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "attestctl")])
    found = find_installation()
    references = found.references(user_mode=True)
    assert references.user_mode
    assert references.relays[0].script_path == str(tmp_path / "attestd-connect")
    assert references.cli[0].script_sha256 == hashlib.sha256(b"attestctl").hexdigest()
    text = f"attestd program v1\nexe {found.interpreter_sha256}\nscript {found.script_sha256['attestctl']}\n"
    assert found.program_of("attestctl") == hashlib.sha256(text.encode()).hexdigest()
