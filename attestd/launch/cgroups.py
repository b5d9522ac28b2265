"""A cgroup for each server, where the launcher's own cgroup was delegated to it (systemd: ``Delegate=yes``).

Standard library only. It is one more way to be sure that nothing of a server survives, and the place of limits for a
server and all that it starts. Where there is no such cgroup, servers run without, and a limit that needs one is
refused.
"""
# ruff: noqa: PTH102, PTH106, PTH118, PTH123, PTH208 - as in ``tree``

import contextlib
import os
import sys

if sys.platform != "linux":
    sys.exit("error: cannot launch servers on this platform: the launcher needs Linux")

CONTROLLERS = ("pids", "memory")
OWN = "launcher"
MIB = 1 << 20


class Cgroups:
    """The delegated part of the tree."""

    def __init__(self, root: str | None) -> None:
        """``root``: our own cgroup's directory, or None. Moves us out of the way of the servers' cgroups."""
        self._root: str | None = None
        self.controllers: frozenset[str] = frozenset()
        if root is None or not os.access(os.path.join(root, "cgroup.procs"), os.W_OK):
            return
        try:
            own = os.path.join(root, OWN)
            with contextlib.suppress(FileExistsError):
                os.mkdir(own)
            _write(os.path.join(own, "cgroup.procs"), str(os.getpid()))
        except OSError:
            return
        self._root = root
        with open(os.path.join(root, "cgroup.controllers"), encoding="ascii") as file:
            offered = set(file.read().split()).intersection(CONTROLLERS)
        for controller in sorted(offered):
            with contextlib.suppress(OSError):
                _write(os.path.join(root, "cgroup.subtree_control"), f"+{controller}")
                self.controllers |= {controller}

    def __bool__(self) -> bool:
        return self._root is not None

    def make(self, name: str, processes: int, memory_mib: int) -> str:
        """A cgroup with these limits, 0: none; its directory. Raises OSError."""
        if self._root is None:
            raise FileNotFoundError
        path = os.path.join(self._root, name)
        os.mkdir(path)
        try:
            if processes and "pids" in self.controllers:
                _write(os.path.join(path, "pids.max"), str(processes))
            if memory_mib:
                _write(os.path.join(path, "memory.max"), str(memory_mib * MIB))
                _write(os.path.join(path, "memory.oom.group"), "1")  # who takes more is ended whole, not by the largest
                with contextlib.suppress(OSError):  # without swap accounting there is no such file
                    _write(os.path.join(path, "memory.swap.max"), "0")
        except OSError:
            os.rmdir(path)
            raise
        return path

    def of(self, prefix: str) -> list[str]:
        """The directories of the cgroups whose names begin so."""
        if self._root is None:
            return []
        return [os.path.join(self._root, name) for name in os.listdir(self._root) if name.startswith(prefix)]


def enter(path: str) -> None:
    """Move this process. Raises OSError."""
    _write(os.path.join(path, "cgroup.procs"), "0")


def removed(path: str) -> bool:
    """Kill whatever is in a cgroup and remove it; False: not yet, because killing takes a moment."""
    try:
        _write(os.path.join(path, "cgroup.kill"), "1")
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def own_cgroup() -> str | None:
    """Directory of our cgroup of version 2; None: this system has none."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split() for line in file]
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        path = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), None)
    for words in mounts:
        if path is not None and words[words.index("-") + 1] == "cgroup2" and words[3] == "/":
            return words[4].rstrip("/") + path.rstrip("/")
    return None


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
