from __future__ import annotations

import os
import resource

import pytest

from attestd.errors import EvidenceError
from attestd.kernel.linux import table as module
from attestd.kernel.linux.access import Access
from attestd.kernel.linux.reading import Sources
from attestd.kernel.linux.table import ProcessTable, default_limit
from tests.support.children import python

WAIT = "import sys; print('ready', flush=True); sys.stdin.readline()"


def open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_second_look_is_the_same_link(table: ProcessTable):
    """An unchanged process is not read again."""
    with python(WAIT) as child:
        first, second = table.observe(child.pid, Access()), table.observe(child.pid, Access())
        assert first.link is second.link
        first.process.close()
        second.process.close()


def test_the_table_is_bounded(sources: Sources):
    """Only as many processes are held as allowed, and their descriptors are closed with them."""
    small = ProcessTable(sources, 1)
    before = open_count()
    with python(WAIT) as one, python(WAIT) as other:
        during = open_count()
        for child in (one, other, one):
            small.observe(child.pid, Access()).process.close()
        assert open_count() == during + 5
        small.close()
        assert open_count() == during
    assert open_count() == before


def test_the_dead_are_dropped(table: ProcessTable):
    """A process that has exited does not keep its descriptors once others are read."""
    with python(WAIT) as living, python(WAIT) as dying:
        before = open_count()
        table.observe(dying.pid, Access()).process.close()
        dying.kill()
        dying.wait()
        table.observe(living.pid, Access()).process.close()
        assert open_count() == before + 5


def test_the_dead_are_dropped_whoever_lives(table: ProcessTable):
    """Old entries that are alive and never used again do not keep those of the dead; the living are known still."""
    with python(WAIT) as one, python(WAIT) as other, python(WAIT) as third:
        before = open_count()
        links = {child.pid: table.observe(child.pid, Access()) for child in (one, other, third)}
        for _ in range(20):
            with python(WAIT) as dying:
                table.observe(dying.pid, Access()).process.close()
        for observed in links.values():
            observed.process.close()
        assert open_count() <= before + 5 * (3 + 3)
        for child in (one, other, third):
            again = table.observe(child.pid, Access())
            assert again.link is links[child.pid].link
            again.process.close()


def test_a_dead_process_is_not_answered_from_memory(table: ProcessTable):
    """What was known of a process that is gone is not given out."""
    with python(WAIT) as child:
        table.observe(child.pid, Access()).process.close()
        child.kill()
        child.wait()
        with pytest.raises(EvidenceError):
            table.observe(child.pid, Access())


def test_the_limit_follows_the_descriptors(monkeypatch: pytest.MonkeyPatch):
    """A quarter of the soft limit at most, never more than 1024 processes, never fewer than 16."""
    for soft, expected in ((1024, 51), (1_000_000, 1024), (10, 16), (resource.RLIM_INFINITY, 1024)):
        monkeypatch.setattr(module.resource, "getrlimit", lambda _what, soft=soft: (soft, soft))
        assert default_limit() == expected
