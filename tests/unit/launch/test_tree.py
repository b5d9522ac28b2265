"""Processes as the launchers see them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from attestd.launch import tree

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(100)"]


def test_children_are_found_with_and_without_the_kernels_list() -> None:
    """Both ways of finding children agree on a living child, and on none for a process that is gone."""
    with subprocess.Popen(SLEEP) as child:
        assert child.pid in tree.children_of(os.getpid())
        assert child.pid in tree.children_by_scan(os.getpid())
        assert tree.parent_of(child.pid) == os.getpid()
        child.kill()
    assert tree.children_of(child.pid) == []
    assert tree.parent_of(child.pid) == -1


def test_a_tree_is_signalled_except_what_is_spared() -> None:
    """Every descendant gets the signal, except those below a spared child."""
    source = "import subprocess,sys; p = subprocess.Popen(['sleep', '100']); print(p.pid, flush=True); p.wait()"
    command = [sys.executable, "-I", "-c", source]
    script = (
        "import subprocess,sys\nfrom attestd.launch import tree\n"
        f"both = [subprocess.Popen({command!r}, stdout=subprocess.PIPE, text=True) for _ in (1, 2)]\n"
        "pids = [int(p.stdout.readline()) for p in both]\n"
        "tree.signal_tree(9, [both[0].pid])\nboth[1].wait()\n"
        "print(both[0].poll(), tree.parent_of(pids[0]) == both[0].pid)\n"
        "tree.signal_tree(9); both[0].wait()\n"
    )
    root = Path(tree.__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", script], text=True, cwd=root) == "None True\n"
