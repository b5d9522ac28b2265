"""``attestctl servers``."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.control_instance import Installation


def test_adding_showing_and_removing(fresh: Installation, tmp_path: Path) -> None:
    """A server comes and goes; of its environment the names are told, never the values."""
    program = tmp_path / "mcp server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    words = ("--env", "LANG=secret", "--shared", "--", str(program), "--flag", "--json-ish")
    (added,) = fresh.json("servers", "add", "clock", *words[:3])
    assert added["command"] == []
    assert fresh.run("servers", "remove", "clock").stdout == "removed clock\n"
    shown = fresh.run("servers", "add", "clock", *words).stdout
    assert "mcp server' --flag --json-ish" in shown
    assert "one back end for all callers" in shown
    assert "LANG" in shown
    assert "secret" not in shown
    assert [each["name"] for each in fresh.json("servers", "list")] == ["time", "clock"]
    assert fresh.run("servers", "show", "clock").stdout == shown


def test_a_unix_back_end(fresh: Installation) -> None:
    """Transport and path are passed on."""
    (added,) = fresh.json("servers", "add", "x", "--transport", "unix", "--path", "/run/x.sock")
    assert (added["transport"], added["path"]) == ("unix", "/run/x.sock")


def test_an_empty_registry_is_said(idle: Installation) -> None:
    """Nothing on standard output, exit code 0."""
    with idle.daemon(empty=["registry"]):
        result = idle.run("servers", "list")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "no server is registered\n")


def test_changing_the_registry_needs_the_right(idle: Installation) -> None:
    """Who may not approve may not add a server."""
    with idle.daemon(how=""):
        assert idle.run("servers", "add", "x", "--", "true").returncode == 4
        assert idle.run("servers", "remove", "time").returncode == 4


def test_the_program_is_looked_up_at_once(fresh: Installation) -> None:
    """A command without a slash is kept as the absolute path that it means to the person who types it."""
    shown = fresh.run("servers", "add", "looked-up", "--", "true").stdout
    assert re.search(r"runs +/\S*/true\n", shown)
    missing = fresh.run("servers", "add", "gone", "--", "no-such-program-here")
    assert missing.returncode == 2
    assert "cannot find the program 'no-such-program-here'" in missing.stderr


def test_sealing_and_unsealing(fresh: Installation) -> None:
    """What becomes of direct connections is said, by show and by status too; both need the right."""
    assert fresh.run("servers", "seal", "time").stdout == "sealed time; direct connections: redirected\n"
    assert "direct connections: redirected" in fresh.run("servers", "show", "time").stdout
    assert re.search(r"sealed +time \(port 8765\) redirected", fresh.run("status").stdout)
    again = fresh.run("servers", "seal", "time")
    assert (again.returncode, "it is sealed" in again.stderr) == (9, True)
    assert fresh.run("servers", "unseal", "time").stdout == "open to everybody: time\n"
    (refused,) = fresh.json("servers", "seal", "time", "--refuse")
    assert refused["sealed"] == "refused"


def test_sealing_needs_the_right(idle: Installation) -> None:
    """Who may not approve may neither close nor open a server."""
    with idle.daemon(how=""):
        assert idle.run("servers", "seal", "time").returncode == 4
        assert idle.run("servers", "unseal", "time").returncode == 4
