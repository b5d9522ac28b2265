"""Who listens, and whether it is attestd; the whole proof is in test_daemon_proof.py, macOS's in tests/e2e/test_macos.py."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attestd.control import listening
from tests.fakes.libsystem import procargs, token_bytes
from tests.support.macs import Scene, scene


@pytest.fixture(name="mac")
def _mac() -> Iterator[Scene]:
    with scene(os.geteuid()) as made:
        yield made


@pytest.fixture(name="macos")
def _macos(monkeypatch: pytest.MonkeyPatch, mac: Scene) -> ModuleType:
    """The module as it is on macOS, on a Mac in memory."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: mac.mac)
    spec = importlib.util.spec_from_file_location("listening_of_macos", Path(listening.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Answers:
    """A socket that has these options of level SOL_LOCAL."""

    def __init__(self, credentials: bytes, *tokens: bytes) -> None:
        self._credentials = credentials
        self._tokens = list(tokens)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """Each token once."""
        assert level == 0
        return (self._credentials if option == 1 else self._tokens.pop(0))[:size]


def xucred(uid: int, version: int = 0) -> bytes:
    """Credentials of the listener."""
    return struct.pack("<IIh2x16I", version, uid, 1, *([20] * 16))


def test_linux_says_who_listened():
    """The process that called listen, with its uid."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert listening.listener_of(ours) == (os.geteuid(), os.getpid(), 0)


def test_a_program_of_linux():
    """Executable, words and directory; a process that is gone is an error."""
    with subprocess.Popen([sys.executable, "-I", "-c", "input()", "word"], stdin=subprocess.PIPE, cwd="/") as process:
        while b"\0" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            continue
        exe, words, cwd = listening.program_of(process.pid)
        assert Path(exe).samefile(sys.executable)
        assert words[1:] == [b"-I", b"-c", b"input()", b"word"]
        assert Path(cwd).samefile("/")
        process.kill()
        process.communicate()
    with pytest.raises(FileNotFoundError):
        listening.program_of(process.pid)


def test_a_program_of_macos(macos: ModuleType, mac: Scene):
    """The same of a process of the user; of one that is gone or another user's it is an error with its errno."""
    process = mac.agent(cwd="/Users/dev")
    process.uids, process.argv = (os.geteuid(),) * 3, ("agent", "a", "", "c")
    assert macos.program_of(process.pid) == (process.code.path, [b"agent", b"a", b"", b"c"], "/Users/dev")
    for pid in (mac.login.pid, 99_999_999):
        if pid == mac.login.pid and os.geteuid() == 0:
            continue
        with pytest.raises(OSError):
            macos.program_of(pid)


@pytest.mark.parametrize("raw", [b"", struct.pack("<i", 3) + b"/x\0\0\0\0\0\0a\0b\0", procargs("/x", ("", "a"), ())])
def test_words_that_cannot_be_told_apart(macos: ModuleType, raw: bytes):
    """No count, fewer words than it says, or an empty name, which looks like padding."""
    with pytest.raises(OSError, match="cannot be told apart"):
        macos._words(raw)


def test_attestd_is_its_script_and_our_interpreter(tmp_path: Path):
    """Flags before it are passed over; another script, directory or interpreter is another program."""
    script, other = tmp_path / "attestd", tmp_path / "other"
    for path in (script, other):
        path.write_text("input()\n")
    (tmp_path / "elsewhere").mkdir()
    for words, found in ((["-I", str(script)], True), ([str(other)], False), (["-c", "input()"], False)):
        with subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE) as process:
            while b"\0" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                continue
            assert listening.runs_attestd(process.pid, [str(tmp_path)], sys.executable) is found
            assert not listening.runs_attestd(process.pid, [str(tmp_path / "elsewhere")])
            assert not listening.runs_attestd(process.pid, [str(tmp_path)], "/bin/sh")
            process.kill()


def test_macos_names_the_last_user(macos: ModuleType, mac: Scene):
    """Uid of the listener, pid and pid version of the last user; other structures are refused."""
    token = token_bytes(mac.zsh)
    assert macos.listener_of(Answers(xucred(501), token)) == (501, mac.zsh.pid, mac.zsh.version)
    for credentials, each in ((xucred(501, 1), token), (xucred(501)[:40], token), (xucred(501), token[:20])):
        with pytest.raises(OSError, match="other structures"):
            macos.listener_of(Answers(credentials, each))


def test_objections_of_macos(macos: ModuleType, mac: Scene, tmp_path: Path):
    """Another uid, another program, and another process than before the look; none speaks against attestd."""
    us = mac.mac.processes[os.getpid()]
    us.code = mac.code("python3")
    daemon = mac.mac.spawn(1, us.code, "python3", str(tmp_path / "attestd"), uids=us.uids)
    stranger = mac.mac.spawn(1, us.code, "python3", str(tmp_path / "other"), uids=us.uids)
    for name in ("attestd", "other"):
        (tmp_path / name).write_text("")

    def said(*tokens: bytes, uid: int = 501, directory: Any = tmp_path) -> str:
        return str(macos.objection(Answers(xucred(uid), *tokens), "/s", (501, 0), str(directory)))

    good, bad = token_bytes(daemon), token_bytes(stranger)
    assert said(good, good) == ""
    assert said(bad, directory="") == ""
    assert said(good, uid=502) == "the listener on /s runs as uid 502, expected 0 or 501"
    assert said(bad, bad).startswith(f"pid {stranger.pid} listens and is not {tmp_path}/attestd")
    assert said(good, bad) == f"it is not pid {daemon.pid} any more that uses /s"
    mac.mac.exit(daemon.pid)
    assert said(good).startswith("cannot see which program listens")
