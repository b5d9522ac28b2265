"""Cgroups of servers, with the kernel's own where we may make some."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.launch.cgroups import Cgroups, own_cgroup

ROOT = Path(__file__).resolve().parents[3]

LIVES = """
import os, subprocess, sys, time
from attestd.launch import cgroups
root = sys.argv[1]
with open(root + "/cgroup.procs", "w") as file: file.write("0")
made = cgroups.Cgroups(root)
print(bool(made), open("/proc/self/cgroup").read().rstrip().endswith("/launcher"))
path = made.make("server-1-1", 10, 0)
child = subprocess.Popen(["sleep", "1000"], preexec_fn=lambda: cgroups.enter(path))
print(open(path + "/cgroup.procs").read().split() == [str(child.pid)], made.of("server-1-") == [path], made.of("server-2-"))
if "pids" in made.controllers: assert open(path + "/pids.max").read().strip() == "10"
while not cgroups.removed(path): time.sleep(0.01)
print(child.wait(), os.path.exists(path), cgroups.removed(path))
"""


@pytest.fixture(name="delegated")
def _delegated() -> Iterator[Path | None]:
    """A cgroup of ours; None where we may not make one."""
    own = own_cgroup()
    made = None if own is None else Path(own) / f"attestd-test-{uuid.uuid4().hex[:8]}"
    try:
        if made is not None:
            made.mkdir()
    except OSError:
        made = None
    yield made
    if made is not None:
        for path in (made / "launcher", made):
            if path.is_dir():
                path.rmdir()


def test_without_a_delegated_cgroup_there_are_none(tmp_path: Path):
    """Nothing is made, nothing is found, and making one is an error."""
    for root in (None, str(tmp_path)):
        none = Cgroups(root)
        assert not none
        assert none.of("server-") == []
        assert none.controllers == frozenset()
        with pytest.raises(FileNotFoundError):
            none.make("server-1-1", 1, 1)


def test_our_own_is_where_the_kernel_says():
    """It has the kernel's list of processes, with us in it, wherever a tree of version 2 is mounted."""
    own = own_cgroup()
    assert own is not None or "cgroup2" not in Path("/proc/mounts").read_text()
    if own is not None:
        assert str(os.getpid()) in Path(own, "cgroup.procs").read_text().split()


def test_a_server_lives_and_dies_in_its_cgroup(delegated: Path | None):
    """The launcher steps aside, a server enters its cgroup, and removing that kills it; where none can be made, there is none."""
    if delegated is None:
        assert not os.access(f"{own_cgroup()}/cgroup.procs", os.W_OK) or not Cgroups(None)
        return
    done = subprocess.run(
        [sys.executable, "-c", LIVES, str(delegated)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "True True\nTrue True []\n-9 False True\n", done.stderr


def test_a_server_that_takes_too_much_is_ended_whole(tmp_path: Path):
    """With its limit of memory goes the word that the kernel kills all of its processes, not the largest one."""
    for name, text in (("cgroup.procs", ""), ("cgroup.controllers", "memory pids\n"), ("cgroup.subtree_control", "")):
        (tmp_path / name).write_text(text)
    cgroups = Cgroups(str(tmp_path))
    limited, free = (Path(cgroups.make(f"server-1-{mib}", 0, mib)) for mib in (64, 0))
    assert {path.name: path.read_text() for path in limited.iterdir()} == {
        "memory.max": str(64 << 20),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
    }
    assert list(free.iterdir()) == []
