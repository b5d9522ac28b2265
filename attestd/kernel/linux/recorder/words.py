"""The words of execs: decoding, and a bounded store of them in memory.

A store keeps the bytes as they came and decodes what is asked for: an exec storm costs one copy and one dictionary
entry each. It forgets the oldest first. What it forgot of a living process is still held by the kernel
(``words_of_living``, ``words_of_task``).
"""

from __future__ import annotations

from collections import OrderedDict

from attestd.evidence.recorder import ExecEvent, ProcessKey
from attestd.kernel.linux.recorder.layout import (
    ARGV_CUT,
    ENVIRON_CUT,
    PATH_CUT,
    UNREADABLE,
    WORDS,
    device,
)

STORE_BYTES = 16 << 20
_OVERHEAD = 300
Identity = tuple[int, int, int]
"""pid, start time in ns, exec counter."""


def identity(data: bytes) -> Identity | None:
    """Whose words these are; None if there are none."""
    if len(data) < WORDS.size:
        return None
    start_ns, exec_counter, _, _, pid, *_ = WORDS.unpack_from(data)
    return (pid, start_ns, exec_counter) if pid else None


def decode(data: bytes) -> ExecEvent | None:
    """An event; None if the lengths in it do not fit its size."""
    if len(data) < WORDS.size:
        return None
    (start_ns, counter, time_ns, cwd_ino, pid, cwd_dev, flags, *sizes) = WORDS.unpack_from(data)
    filename_size, interp_size, cwd_size, argv_size, environ_size, _ = sizes
    parts, at = [], WORDS.size
    for size in (cwd_size, filename_size, interp_size, argv_size, environ_size):
        parts.append(data[at : at + size])
        at += size
    if at > len(data):
        return None
    cwd, filename, interp, argv, environ = parts
    name = _name(filename)
    argv_cut, environ_cut = bool(flags & ARGV_CUT), bool(flags & ENVIRON_CUT)
    return ExecEvent(
        key=ProcessKey(pid, start_ns),
        exec_counter=counter,
        argv=_strings(argv, argv_cut),
        environ=_strings(environ, environ_cut),
        cwd=_path(cwd) if cwd or not flags & PATH_CUT else "",
        cwd_dev=device(cwd_dev),
        cwd_ino=cwd_ino,
        filename=name,
        interp=_name(interp) if interp else name,
        truncated=bool(flags & (ARGV_CUT | ENVIRON_CUT | PATH_CUT | UNREADABLE)),
        time_ns=time_ns,
        argv_truncated=argv_cut,
        environ_truncated=environ_cut,
    )


def _name(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _strings(data: bytes, cut: bool) -> tuple[bytes, ...]:
    """Strings that end with a zero byte each; the last one of a cut area may be incomplete and is kept as it is."""
    if not data:
        return ()
    return tuple((data if cut and data[-1] else data.removesuffix(b"\0")).split(b"\0"))


def _path(data: bytes) -> str:
    parts = data.removesuffix(b"\0").split(b"\0") if data else []
    return "/" + b"/".join(reversed(parts)).decode("utf-8", "surrogateescape")


class WordStore:
    """Events by identity, oldest forgotten first."""

    def __init__(self, limit_bytes: int = STORE_BYTES) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._events: OrderedDict[Identity, bytes] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, data: bytes) -> None:
        """Keep an event; the same event twice is kept once."""
        whose = identity(data)
        if whose is None:
            return
        former = self._events.pop(whose, None)
        if former is not None:
            self._held -= len(former) + _OVERHEAD
        self._events[whose] = data
        self._held += len(data) + _OVERHEAD
        while self._held > self._limit:
            _, dropped = self._events.popitem(last=False)
            self._held -= len(dropped) + _OVERHEAD
            self.forgotten += 1

    def get(self, pid: int, start_ns: int, exec_counter: int) -> ExecEvent | None:
        """The words of one exec."""
        data = self._events.get((pid, start_ns, exec_counter))
        return None if data is None else decode(data)
