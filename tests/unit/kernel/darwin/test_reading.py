"""One link: facts, gaps, and what happens while it is read."""

from __future__ import annotations

import os
import stat

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Link
from attestd.kernel.darwin.access import Access
from attestd.kernel.darwin.reading import observe
from tests.support.macs import TTY, Scene


def read(scene: Scene, pid: int) -> Link:
    """The link of a process."""
    return observe(scene.system, scene.files, pid, Access(scene.system.acl_allows)).link


def test_a_link_has_its_facts(scene: Scene):
    """Ids, uids, words, terminal, signature and file of a process of our user."""
    agent = scene.agent(cwd=str(scene.directory))
    link = read(scene, agent.pid)
    assert (link.pid, link.ppid, link.pidfs_ino) == (agent.pid, scene.zsh.pid, agent.unique_id)
    assert (link.uids, link.gids) == ((501,) * 4, (20,) * 4)
    assert (link.tty, link.session, link.argv) == ("ttys003", scene.zsh.pid, ("agent",))
    assert link.start_ticks == agent.start_us
    assert link.exe is not None
    assert link.exe.sha256 is not None
    assert link.signature is not None
    assert link.signature.cdhash == (agent.code.cdhash or b"").hex()
    assert link.gaps == ()
    assert link.namespaces.ours_mnt is True


def test_another_users_process_has_gaps(scene: Scene):
    """Image and signature are known; start, directories and words are gaps, not values."""
    link = read(scene, scene.login.pid)
    assert link.origin is not None
    assert link.origin.name == "com.apple.login"
    assert link.uids == (0, 0, 0, 0)
    assert {gap.partition(":")[0] for gap in link.gaps} == {"start", "cwd", "argv"}
    assert (link.tty, link.start_ticks, link.argv) == (None, 0, ())


def test_a_replaced_file_is_a_gap(scene: Scene):
    """The running image has no digest once another file lies at its path."""
    agent = scene.agent()
    scene.code("agent", "other")
    link = read(scene, agent.pid)
    assert link.exe is not None
    assert link.exe.sha256 is None
    assert "exe: the file is not the image that runs" in link.gaps


def test_a_tracer_is_named(scene: Scene):
    """A traced process has its tracer for a parent."""
    agent, tracer = scene.agent(), scene.agent()
    scene.mac.trace(agent.pid, tracer.pid)
    assert read(scene, agent.pid).tracer_pid == tracer.pid


def test_another_root_directory(scene: Scene):
    """A process that sees other files than we do is shown as in a foreign mount namespace, and names lead nowhere."""
    (scene.directory / "node").write_bytes(b"")
    node = scene.mac.spawn(scene.zsh.pid, scene.signed("node"), "node", "client.js", root="/private/jail")
    link = read(scene, node.pid)
    assert link.namespaces.ours_mnt is False
    assert link.script is not None
    assert link.script.kind == "unresolved"


def test_preloads_are_posture(scene: Scene):
    """The loader's variables are seen."""
    agent = scene.agent(environ=("DYLD_INSERT_LIBRARIES=/tmp/evil.dylib", "HOME=/Users/dev"))
    assert read(scene, agent.pid).posture == ("env DYLD_INSERT_LIBRARIES=/tmp/evil.dylib",)


def test_a_prompt_at_its_terminal(scene: Scene):
    """A shell whose standard input is its own terminal has a person's words; one with another device has not."""
    for device, kind in ((TTY, "none"), (TTY + 1, "stdin")):
        scene.zsh.fds = {0: ("vnode", (stat.S_IFCHR | 0o620, device))}
        script = read(scene, scene.zsh.pid).script
        assert script is not None
        assert script.kind == kind


def test_an_exec_while_it_is_read(scene: Scene):
    """The link is of one image: that of the second attempt."""
    agent, other = scene.agent(), scene.signed("other", "com.example.other")
    before = scene.mac.queries

    def happening() -> bool:
        if scene.mac.queries < before + 4:
            return True
        scene.mac.execute(agent.pid, other)
        return False

    scene.mac.on_query = happening
    link = read(scene, agent.pid)
    assert link.origin is not None
    assert link.origin.name.endswith("/com.example.other")
    assert link.exe is not None
    assert link.exe.path == other.path
    assert link.argv == (other.path,)


def test_a_process_that_never_stops_executing(scene: Scene):
    """After three attempts it is refused."""
    agent, codes = scene.agent(), (scene.signed("one"), scene.signed("two"))

    def happening() -> bool:
        scene.mac.execute(agent.pid, codes[scene.mac.queries % 2])
        return True

    scene.mac.on_query = happening
    with pytest.raises(EvidenceError) as refused:
        read(scene, agent.pid)
    assert refused.value.cause is Cause.INCONSISTENT


def test_a_pid_that_is_reused_while_it_is_read(scene: Scene):
    """The new owner is never taken for the old one."""
    agent, other = scene.agent(), scene.signed("other")
    before = scene.mac.queries

    def happening() -> bool:
        if scene.mac.queries < before + 5:
            return True
        scene.mac.exit(agent.pid)
        scene.mac.spawn(scene.zsh.pid, other, pid=agent.pid)
        return False

    scene.mac.on_query = happening
    with pytest.raises(EvidenceError) as refused:
        read(scene, agent.pid)
    assert refused.value.cause is Cause.PEER_GONE


def test_a_dead_process(scene: Scene):
    """A zombie is gone."""
    agent = scene.agent()
    scene.mac.exit(agent.pid, reaped=False)
    with pytest.raises(EvidenceError) as refused:
        read(scene, agent.pid)
    assert refused.value.cause is Cause.PEER_GONE


def test_words_that_cannot_be_told_apart(scene: Scene):
    """An empty first word leaves no words, and an interpreter unresolved."""
    node = scene.mac.spawn(scene.zsh.pid, scene.signed("node"), "", "client.js", cwd=os.fspath(scene.directory))
    link = read(scene, node.pid)
    assert link.argv == ()
    assert any(gap.startswith("argv:") for gap in link.gaps)
    assert link.script is not None
    assert link.script.kind == "unresolved"
