"""The launcher of system mode as a program; what it does is in tests/attacks/test_l*.py, with the real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from attestd.launch import system
from attestd.launch.system import Setting

ROOT = Path(__file__).resolve().parents[3]


def test_it_needs_the_standard_library_only():
    """In an isolated interpreter without site-packages it loads nothing of attestd but what stands beside it."""
    source = (
        f"import sys; sys.path.append({str(ROOT)!r}); import attestd.launch.system\n"
        "print(*sorted(n for n, m in sys.modules.items() if 'site-packages' in str(getattr(m, '__file__', ''))))\n"
        "print(*sorted(n for n in sys.modules if n.startswith('attestd')))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", source], capture_output=True, text=True, check=True, cwd="/"
    )
    foreign, own = done.stdout.splitlines()
    parts = "accounts becoming bell cgroups ordered program refusal registry sandbox supervision system tree"
    assert foreign == ""
    assert own.split() == ["attestd", "attestd.launch", *(f"attestd.launch.{part}" for part in parts.split())]


def test_without_systemds_socket_it_is_no_launcher():
    """Started by hand, from any directory, it says what it expected."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", system.__file__], cwd="/", capture_output=True, text=True, check=False, env={}
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "got no socket, expected one of systemd" in done.stderr


def test_what_root_may_set(tmp_path: Path):
    """Daemon by number or local account, registry, state and range of isolated uids."""
    found = Setting(["--daemon", "123", "--registry", "/r", "--state", str(tmp_path), "--isolated", "5-6"])
    assert (found.daemon, found.registry) == (123, "/r")
    assert 5 in found.isolated
    assert 7 not in found.isolated
    assert found.isolated.account("x", 1).uid == 5
    assert Setting(["--daemon", "root"]).daemon == 0
    assert 1_900_000_000 in Setting(["--daemon", "root"]).isolated
    with pytest.raises(ValueError, match="invalid literal"):
        Setting(["--daemon", "0", "--isolated", "many"])
