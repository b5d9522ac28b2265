"""The chain to launchd, and what breaks it."""

from __future__ import annotations

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Link
from attestd.kernel.darwin.chain import MAX_LINKS, OTHER_STARTER, walk
from tests.support.macs import Scene


def chain(scene: Scene, pid: int) -> tuple[list[Link], str]:
    """Links and end."""
    found, end = walk(scene.system, scene.files, pid)
    return [each.link for each in found], end


def test_it_leads_to_launchd(scene: Scene):
    """Peer, shell, login, terminal, launchd; nobody is taken for adopted."""
    agent = scene.agent()
    links, end = chain(scene, agent.pid)
    assert [link.pid for link in links] == [agent.pid, scene.zsh.pid, scene.login.pid, scene.terminal.pid, 1]
    assert end == "init"
    assert {link.reparented for link in links} == {False}


def test_an_orphan_is_launchds_by_adoption_only(scene: Scene):
    """Launchd did not fork it: the chain is broken at once."""
    parent = scene.agent()
    child = scene.mac.fork(parent.pid)
    scene.mac.exit(parent.pid)
    links, end = chain(scene, child.pid)
    assert ([link.pid for link in links], end) == ([child.pid], "broken")
    assert links[0].reparented is True


def test_an_exec_does_not_make_an_orphan_launchds_own(scene: Scene):
    """After an exec the kernel gives launchd's unique id; the version of the fork still tells."""
    parent = scene.agent()
    child = scene.mac.fork(parent.pid)
    scene.mac.exit(parent.pid)
    scene.mac.execute(child.pid, scene.signed("claude"))
    assert child.parent_unique_id == scene.mac.processes[1].unique_id
    links, end = chain(scene, child.pid)
    assert (end, links[-1].reparented) == ("broken", True)


def test_a_debugger_is_no_parent(scene: Scene):
    """The tracer that the kernel names as parent did not start the process."""
    agent, tracer = scene.agent(), scene.agent()
    scene.mac.trace(agent.pid, tracer.pid)
    links, end = chain(scene, agent.pid)
    assert (len(links), end) == (1, "broken")
    assert links[0].tracer_pid == tracer.pid


def test_a_parent_that_became_another_program(scene: Scene):
    """Who started the child has executed something since: the child says so."""
    parent = scene.agent()
    child = scene.mac.fork(parent.pid)
    scene.mac.execute(parent.pid, scene.signed("claude"))
    links, end = chain(scene, child.pid)
    assert end == "init"
    assert OTHER_STARTER in links[0].gaps
    assert OTHER_STARTER not in links[1].gaps


def test_a_parents_pid_that_is_reused(scene: Scene):
    """A stranger with the parent's pid is not the parent."""
    parent = scene.agent()
    child = scene.mac.fork(parent.pid)
    scene.mac.exit(parent.pid)
    stranger = scene.mac.spawn(scene.zsh.pid, scene.signed("stranger"), pid=parent.pid)
    child.ppid = stranger.pid
    _, end = chain(scene, child.pid)
    assert end == "broken"


def test_a_long_chain(scene: Scene):
    """It ends after 32 links, and says so."""
    pid = scene.zsh.pid
    for _ in range(MAX_LINKS + 3):
        pid = scene.mac.fork(pid).pid
    links, end = chain(scene, pid)
    assert (len(links), end) == (MAX_LINKS, "limit")


def test_an_ancestor_that_exits_meanwhile(scene: Scene):
    """The walk is made anew, and shows what is there then."""
    parent = scene.agent()
    child = scene.mac.fork(parent.pid)
    before = scene.mac.queries

    def happening() -> bool:
        if scene.mac.queries < before + 12:
            return True
        scene.mac.exit(parent.pid)
        return False

    scene.mac.on_query = happening
    links, end = chain(scene, child.pid)
    assert (len(links), end) == (1, "broken")


def test_a_refusal_of_the_kernel(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """A peer that may not be asked about is unattestable; such a parent ends the chain as unreadable."""
    import ctypes
    import errno

    agent, true = scene.agent(), scene.mac.proc_pidinfo

    def refusing(pid: int) -> None:
        def proc_pidinfo(asked: int, *rest: object) -> int:
            if asked == pid:
                ctypes.set_errno(errno.EPERM)
                return 0
            return true(asked, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(scene.mac, "proc_pidinfo", proc_pidinfo)

    refusing(scene.zsh.pid)
    assert chain(scene, agent.pid)[1] == "unreadable"
    refusing(agent.pid)
    with pytest.raises(EvidenceError) as refused:
        chain(scene, agent.pid)
    assert refused.value.cause is Cause.UNATTESTABLE


def test_a_kernel_that_does_not_tell_the_original_parent(scene: Scene):
    """There every child of launchd is an orphan: nothing is assumed."""
    scene.mac.original_parents = False
    links, end = chain(scene, scene.agent().pid)
    assert end == "broken"
    assert links[-1].pid == scene.terminal.pid
