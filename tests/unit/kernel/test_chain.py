from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.kernel.linux import chain
from attestd.kernel.linux.access import Access
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.table import ProcessTable
from tests.support.children import expect_ready, kill_and_wait_gone, python, running

NEST = """
import subprocess, sys
depth = int(sys.argv[1])
if depth:
    code = sys.argv[2]
    sys.exit(subprocess.run([sys.executable, '-I', '-c', code, str(depth - 1), code]).returncode)
print('ready', flush=True); sys.stdin.readline()
"""
WAIT = "import sys; print('ready', flush=True); sys.stdin.readline()"


def deepest(pid: int) -> int:
    """The last of a line of only children."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


def test_the_walk_leads_to_us_and_beyond(table: ProcessTable):
    """Each link is the parent of the one before."""
    with python(NEST, "3", NEST) as child:
        links, end = chain.walk(table, deepest(child.pid))
        pids = [observed.link.pid for observed in links]
        parents = [observed.link.ppid for observed in links]
        chain.release(links)
        child.stdin.close()
        child.wait()
    assert pids[1:] == parents[: len(pids) - 1]
    assert pids[3:5] == [child.pid, os.getpid()]
    assert end in {"init", "broken", "namespace"}


def test_an_unchanged_chain_is_the_same_links(table: ProcessTable):
    """What the chain marks a link with is remembered with it; another mark is another link."""
    with python(NEST, "1", NEST) as child:
        pid = deepest(child.pid)
        walks = []
        for _ in range(2):
            links, _end = chain.walk(table, pid)
            walks.append([observed.link for observed in links])
            chain.release(links)
        observed = table.observe(pid, Access())
        plain = observed.link
        chain._mark(observed, reparented=None)
        marked = observed.link
        again = table.observe(pid, Access())
        chain._mark(again, reparented=None)
        for each in (observed, again):
            each.process.close()
    assert all(one is other for one, other in zip(*walks, strict=True))
    assert again.link is marked is not plain
    assert (plain.reparented, marked.reparented) == (False, None)


def test_thirty_two_links_are_the_limit(table: ProcessTable):
    """A longer chain is cut and says so."""
    with python(NEST, "40", NEST) as child:
        links, end = chain.walk(table, deepest(child.pid))
        count = len(links)
        chain.release(links)
        child.stdin.close()
        child.wait()
    assert (count, end) == (chain.MAX_LINKS, "limit")


def test_a_lost_parent_is_noticed_in_the_last_pass(table: ProcessTable, monkeypatch: pytest.MonkeyPatch):
    """When the parent exits before the last pass, the chain is walked anew and does not end at that parent."""
    middle = (
        "import subprocess,sys; c = subprocess.Popen([sys.executable,'-I','-c',sys.argv[1]], stdin=0);"
        "print(c.pid, flush=True); c.wait()"
    )
    with running(sys.executable, "-I", "-c", middle, WAIT) as parent:
        words = {parent.stdout.readline().strip() for _ in range(2)}
        leaf = int((words - {"ready"}).pop())
        original = chain._holds
        passes = []

        def holds(links: list) -> bool:
            if not passes:
                parent.kill()
                parent.wait()
            passes.append(original(links))
            return passes[-1]

        monkeypatch.setattr(chain, "_holds", holds)
        try:
            links, end = chain.walk(table, leaf)
            first = links[0].link
            count = len(links)
            chain.release(links)
        finally:
            kill_and_wait_gone(leaf)
    assert passes[0] is False
    assert passes[-1] is True
    assert first.ppid != parent.pid
    assert (first.reparented, end, count) == (True, "broken", 1) or first.reparented is None


def test_a_chain_that_never_rests_is_refused(table: ProcessTable, monkeypatch: pytest.MonkeyPatch):
    """Three walks, then INCONSISTENT, and only the table's own descriptors stay."""
    monkeypatch.setattr(chain, "_holds", lambda _links: False)
    with pytest.raises(EvidenceError) as refusal:
        chain.walk(table, os.getpid())
    assert refusal.value.cause is Cause.INCONSISTENT


def test_a_hidden_process_is_refused_and_a_hidden_parent_ends_the_chain(
    table: ProcessTable, monkeypatch: pytest.MonkeyPatch
):
    """With hidepid, what cannot be opened is unattestable as a peer and unreadable as a parent."""
    original = Process.open.__func__
    hidden = os.getppid()

    def opened(cls: type[Process], pid: int, pidfd: int | None = None) -> Process:
        if pid == hidden:
            raise PermissionError(1, "hidden")
        return original(cls, pid, pidfd)

    monkeypatch.setattr(Process, "open", classmethod(opened))
    links, end = chain.walk(table, os.getpid())
    chain.release(links)
    assert end == "unreadable"
    with pytest.raises(EvidenceError) as refusal:
        chain.walk(table, hidden)
    assert refusal.value.cause is Cause.UNATTESTABLE


def test_a_process_that_is_gone_is_peer_gone(table: ProcessTable):
    """There is no chain of nobody."""
    child = subprocess.Popen([sys.executable, "-I", "-c", ""])
    child.wait()
    with pytest.raises(EvidenceError) as refusal:
        chain.walk(table, child.pid)
    assert refusal.value.cause is Cause.PEER_GONE


def test_a_new_session_of_the_child_is_no_break(table: ProcessTable):
    """A child that leads a session of its own is still its parent's."""
    with running(sys.executable, "-I", "-c", WAIT, start_new_session=True) as child:
        expect_ready(child)
        links, _end = chain.walk(table, child.pid)
        first, second = links[0].link, links[1].link
        chain.release(links)
    assert (first.reparented, second.pid) == (False, os.getpid())
