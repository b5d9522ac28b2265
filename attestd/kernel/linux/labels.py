"""Names for kernel numbers that a link shows: terminal, control group, namespaces."""

from __future__ import annotations

import os

import msgspec

_PTS_MAJORS = range(136, 144)
_TTY_MAJOR = 4
_FIRST_SERIAL = 64


def terminal(tty_nr: int) -> str | None:
    """``pts/3`` for the terminal number of ``/proc/PID/stat``; None for no terminal."""
    if tty_nr == 0:
        return None
    major = (tty_nr >> 8) & 0xFFF
    minor = (tty_nr & 0xFF) | ((tty_nr >> 12) & 0xFFF00)
    if major in _PTS_MAJORS:
        return f"pts/{minor + (major - _PTS_MAJORS.start) * 256}"
    if major == _TTY_MAJOR:
        return f"tty{minor}" if minor < _FIRST_SERIAL else f"ttyS{minor - _FIRST_SERIAL}"
    try:
        return os.path.basename(os.readlink(f"/sys/dev/char/{major}:{minor}"))
    except OSError:
        return f"char {major}:{minor}"


def cgroup(raw: bytes) -> str:
    """The control group: the unified one, unless it is the root and systemd's own (hybrid hierarchy) says more."""
    paths = dict(_hierarchy(line) for line in raw.decode("utf-8", "replace").splitlines())
    unified = paths.get("", "")
    return unified if unified not in {"", "/"} else paths.get("name=systemd", unified)


def _hierarchy(line: str) -> tuple[str, str]:
    _, controllers, path = (*line.split(":", 2), "", "")[:3]
    return controllers, path


class OwnNamespaces(msgspec.Struct, frozen=True, kw_only=True):
    """Inode numbers of the daemon's own namespaces."""

    user: int
    pid: int
    mnt: int

    @classmethod
    def read(cls) -> OwnNamespaces:
        """Those of the calling process. Raises OSError."""
        return cls(**{kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("user", "pid", "mnt")})


def namespace_inode(link: str) -> int:
    """The number in ``user:[4026531837]``. Raises ValueError."""
    return int(link[link.index("[") + 1 : link.index("]")])
