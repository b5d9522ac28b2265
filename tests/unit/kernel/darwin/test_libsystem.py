"""The typed calls: sizes, errors, and what is believed."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

import pytest

from attestd.kernel.darwin import abi
from attestd.kernel.darwin.libsystem import load
from tests.support.macs import Scene


@pytest.mark.skipif(sys.platform == "darwin", reason="that is where it loads")
def test_the_library_is_macos_only():
    """Elsewhere there is nothing to load, and that is said."""
    with pytest.raises(ImportError, match="needs macOS"):
        load()


def test_a_process_that_is_not_there(scene: Scene):
    """ESRCH becomes ProcessLookupError."""
    with pytest.raises(ProcessLookupError):
        scene.system.unique(99_999)


def test_another_size_is_not_believed(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """An answer that is not as long as the structure is refused."""
    monkeypatch.setattr(scene.mac, "proc_pidinfo", lambda *_: 48)
    with pytest.raises(OSError, match="got 48 bytes of UniqueInfo, expected 56") as refused:
        scene.system.unique(1)
    assert refused.value.errno == errno.EPROTO


def test_versions_are_unsigned_as_in_tokens(scene: Scene):
    """A pid version above 2^31 is the same number in flavour 17 and in a token."""
    agent = scene.agent()
    agent.version = -5
    assert scene.system.unique(agent.pid).version == 0xFFFFFFFB


def test_signatures_are_asked_of_one_image(scene: Scene):
    """The version of an image that has gone gets no answer."""
    agent = scene.agent()
    assert scene.system.signed(agent.pid, agent.version, abi.CS_OPS_CDHASH, 20) == agent.code.cdhash
    with pytest.raises(ProcessLookupError):
        scene.system.signed(agent.pid, agent.version - 1, abi.CS_OPS_CDHASH, 20)


def test_another_users_process(scene: Scene):
    """What the kernel keeps from other users is a PermissionError; what it tells everybody is told."""
    assert scene.system.short(scene.login.pid).pbsi_ppid == scene.terminal.pid
    for ask in (scene.system.full, scene.system.directories, scene.system.descriptors):
        with pytest.raises(PermissionError):
            ask(scene.login.pid)
    with pytest.raises(OSError, match="Invalid argument"):
        scene.system.arguments(scene.login.pid)


def test_many_descriptors(scene: Scene):
    """A list that fills the buffer is asked for again with more room."""
    agent = scene.agent(fds=dict.fromkeys(range(300), ("vnode", (33188, 0))))
    assert len(scene.system.descriptors(agent.pid)) == 300


def test_lists_of_access(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """No list and a list that only denies allow nothing; one that allows anybody does; an unreadable one does too."""
    scene.mac.denied_acl.add("/denied")
    scene.mac.allowed_acl.add("/allowed")
    assert [scene.system.acl_allows(path) for path in ("/none", "/denied", "/allowed")] == [False, False, True]

    def refused(*_: object) -> None:
        ctypes.set_errno(errno.EACCES)

    monkeypatch.setattr(scene.mac, "acl_get_link_np", refused)
    assert scene.system.acl_allows("/none")


def test_events_need_a_receipt(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """Watching nobody is ESRCH; a kernel that does not confirm is refused."""
    kq = scene.system.events()
    with pytest.raises(ProcessLookupError):
        scene.system.watch(kq, 99_999)
    monkeypatch.setattr(scene.mac, "kevent", lambda *_: 0)
    with pytest.raises(OSError, match="no receipt"):
        scene.system.watch(kq, 1)
    os.close(kq)


def test_names(scene: Scene):
    """File system, terminal, session, machine."""
    with (scene.directory / "file").open("w") as file:
        assert scene.system.file_system(file.fileno()) == "apfs"
    assert scene.system.terminal(0x10000003) == "ttys003"
    assert scene.system.session(scene.zsh.pid) == scene.zsh.pid
    assert scene.system.session(99_999) == 0
    assert scene.system.host_uuid() == bytes(range(16))


def test_fuse_is_called_so(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """Any FUSE is known by its first letters, as appraisal looks for it."""

    def fstatfs(_fd: int, buffer: object) -> int:
        buffer._obj.f_fstypename = b"macfuse"  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(scene.mac, "fstatfs", fstatfs)
    assert scene.system.file_system(0) == "fuse.macfuse"
