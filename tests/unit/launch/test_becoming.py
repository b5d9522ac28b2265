"""The last steps of a server's process; what they leave is in tests/attacks/test_l06_what_a_server_holds.py."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attestd.launch.accounts import Account
from attestd.launch.becoming import SystemOrder
from attestd.launch.registry import Registered


def order(account: Account | None = None, **changes: Any) -> SystemOrder:
    """An order for this program, changed."""
    table = {"name": "x", "transport": "stdio", "command": ["true"], **changes}
    return SystemOrder(Registered("x", table), account or Account(os.getuid(), os.getgid(), ()), "")


def in_child(work: Callable[[], object]) -> str:
    """What a forked child writes, doing this; the error if it fails."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        try:
            work()
        except OSError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


def test_the_steps_in_their_order():
    """Limits while it may, then the account, then its sandbox, and the proof last."""
    made = order(network=False, read_only=True, writable=["/srv"], limits={"open_files": 9})
    stages = [stage.decode() for stage, _ in made.steps()]
    places = [
        next(place for place, stage in enumerate(stages) if stage.startswith(begin))
        for begin in (
            "limit open_files",
            "give up every capability that",
            "become uid",
            "make its env",
            "take the network",
        )
    ]
    assert places == sorted(places)
    assert stages[-1].startswith("prove that it is uid")
    assert stages[-2] == "make files read-only"
    assert not [stage for stage in stages if stage == "enter its cgroup"]
    with_cgroup = SystemOrder(
        Registered("x", {"name": "x", "transport": "stdio", "command": ["a"]}), made._account, "/c"
    )
    assert next(iter(with_cgroup.steps()))[0] == b"enter its cgroup"


def test_the_environment_is_the_accounts_and_the_files():
    """A client's home comes from the name service, a fixed account's from its line; the file's own variables win."""
    made = order(env={"LANG": "de_DE", "X": "1"})
    made._introduce()
    entry = pwd.getpwuid(os.getuid()) if os.getuid() in {each.pw_uid for each in pwd.getpwall()} else None
    home, name = (entry.pw_dir, entry.pw_name) if entry else ("/", str(os.getuid()))
    assert made.env[b"HOME"].decode() == home
    assert {made.env[key].decode() for key in (b"USER", b"LOGNAME")} == {name}
    assert (made.env[b"LANG"], made.env[b"X"]) == (b"de_DE", b"1")
    assert set(made.env) == {b"PATH", b"HOME", b"USER", b"LOGNAME", b"LANG", b"X"}
    fixed = order(Account(1, 1, (), "mcp", "/srv/mcp"))
    fixed._introduce()
    assert (fixed.env[b"HOME"], fixed.env[b"USER"]) == (b"/srv/mcp", b"mcp")
    unknown = order(Account(1_999_999_999, 1, ()))
    unknown._introduce()
    assert (unknown.env[b"HOME"], unknown.env[b"USER"]) == (b"/", b"1999999999")


def test_a_program_is_found_in_its_own_path(tmp_path: Path):
    """Relative directories of PATH do not count; what is not there, or may not be executed, says so."""
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho found $1")
    tool.chmod(0o755)

    def run(path: str, *command: str) -> str:
        made = order(command=list(command), env={"PATH": path})
        made._introduce()
        return in_child(made.execute)

    assert run(f"relative:/nosuch:{tmp_path}", "tool", "it") == "found it\n"
    assert run("/nosuch", str(tool), "by path") == "found by path\n"
    assert "no such program in PATH" in run(f"{tmp_path}x:.", "tool")
    tool.chmod(0o644)
    assert "Permission denied" in run(str(tmp_path), "tool")


def test_the_proof_fails_for_who_has_not_given_up():
    """A process that may still gain privileges, or is somebody else, is not executed."""
    with pytest.raises(PermissionError):
        order()._prove()
    with pytest.raises(PermissionError):
        order(Account(os.getuid() + 1, 1, ()))._prove()
