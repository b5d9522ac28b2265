"""The command ``attestd``: its words, and errors as text with an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from attestd import __version__
from attestd.daemon import main as module
from attestd.daemon.main import main
from attestd.errors import ExitCode, IntegrityError
from tests.support.daemons import server_text


@pytest.fixture(name="home")
def _home(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """User mode below a short directory."""
    monkeypatch.setenv("HOME", str(short_tmp))
    for name, part in (("XDG_CONFIG_HOME", "c"), ("XDG_STATE_HOME", "s"), ("XDG_RUNTIME_DIR", "r")):
        monkeypatch.setenv(name, str(short_tmp / part))
    (short_tmp / "c" / "attestd" / "servers.d").mkdir(parents=True)
    return short_tmp


def run(*words: str) -> Result:
    """One command."""
    return CliRunner().invoke(main, list(words))


def test_help_and_version():
    """Every command has help that ends with an example."""
    assert __version__ in run("--version").output
    for words in ((), ("run",), ("check-config",), ("demo",)):
        result = run(*words, "--help")
        assert result.exit_code == 0
        assert "Example: attestd" in result.output


def test_a_good_configuration(home: Path):
    """check-config counts what it read and exits 0, without a daemon and without making anything."""
    (home / "c" / "attestd" / "servers.d" / "time.toml").write_text(server_text())
    result = run("check-config", "--user")
    assert result.exit_code == 0, result.output
    assert "1 servers, 1 policy files" in result.output
    assert not (home / "s").exists()


def test_a_bad_configuration(home: Path):
    """Error, hint, exit 3."""
    (home / "c" / "attestd" / "attestd.toml").write_text("nosuch = 1\n")
    result = run("check-config", "--user")
    assert result.exit_code == ExitCode.CONFIGURATION
    assert result.output.startswith("error: ")
    assert "hint: allowed here: " in result.output


def test_another_configuration_file(home: Path, tmp_path: Path):
    """Its directory is the configuration; it must be there and have the usual name."""
    (tmp_path / "attestd.toml").write_text('note = "x"\n')
    assert str(tmp_path) in run("check-config", "--user", "--config", str(tmp_path / "attestd.toml")).output
    missing = run("check-config", "--user", "--config", str(tmp_path / "no.toml"))
    assert (missing.exit_code, "there is no such file" in missing.output) == (3, True)
    (tmp_path / "other.toml").write_text("")
    odd = run("check-config", "--user", "--config", str(tmp_path / "other.toml"))
    assert (odd.exit_code, "must be attestd.toml" in odd.output) == (3, True)
    del home


def test_system_mode_says_what_to_do():
    """Neither root nor a user without the service's directories is the system service."""
    result = run("run")
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "attestd run --user" in result.output


def test_errors_for_people_and_interruptions(monkeypatch: pytest.MonkeyPatch, home: Path):
    """Every error of the family has its own exit code; Ctrl-C is a failure without a traceback."""
    del home

    def broken(_paths: object, _recorder: object, **_options: object) -> None:
        raise IntegrityError("cannot trust the log")

    monkeypatch.setattr(module, "_run", broken)
    result = run("run", "--user")
    assert (result.exit_code, result.output) == (ExitCode.INTEGRITY_BROKEN, "error: cannot trust the log\n")

    def interrupted(_paths: object, _recorder: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_run", interrupted)
    assert run("run", "--user").exit_code == ExitCode.FAILED


def test_another_platform_is_refused_loudly(monkeypatch: pytest.MonkeyPatch, home: Path):
    """There is no weaker fallback."""
    del home
    monkeypatch.setattr(sys, "platform", "freebsd")
    result = run("run", "--user")
    assert result.exit_code == ExitCode.CONFIGURATION
    assert "Linux and macOS only" in result.output


async def test_serving_until_a_signal(home: Path, caplog: pytest.LogCaptureFixture):
    """It says what it serves, reloads on SIGHUP, and ends in order on SIGTERM."""
    from attestd.daemon.paths import user_paths

    caplog.set_level("INFO", "attestd")
    serving = asyncio.ensure_future(module._serve(user_paths(), str(home / "no-recorder")))
    control = home / "r" / "attestd" / "control.sock"
    async with asyncio.timeout(10):
        while not control.exists():
            await asyncio.sleep(0.01)
    (home / "c" / "attestd" / "servers.d" / "time.toml").write_text(server_text())
    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(10):
        while not (home / "r" / "attestd" / "mcp" / "time.sock").exists():
            await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 10)
    assert not control.exists()
    assert f"attestd {__version__} serves 0 servers for uid {os.geteuid()}" in caplog.text
