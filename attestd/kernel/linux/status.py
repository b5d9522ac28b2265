"""Parsing of ``/proc/PID/status`` and ``/proc/PID/stat``, pure functions on bytes.

The process chooses its own name: status escapes newlines and backslashes in it, and stat wraps it in parentheses that
it may itself contain, so stat is cut at the *last* closing one.
"""

from __future__ import annotations

from typing import NamedTuple


class Status(NamedTuple):
    """The lines of ``status`` that attestation uses."""

    comm: str
    ppid: int
    tracer_pid: int
    uids: tuple[int, int, int, int]
    gids: tuple[int, int, int, int]
    groups: tuple[int, ...]
    ns_pids: tuple[int, ...]
    """The pid in every pid namespace from ours inwards; one entry: the process lives in ours."""
    session: int
    """0 where the session leader is outside our pid namespace."""
    zombie: bool


class Stat(NamedTuple):
    """The fields of ``stat`` that attestation uses."""

    state: str
    ppid: int
    group: int
    session: int
    tty_nr: int
    start_ticks: int


def parse_status(raw: bytes) -> Status:
    """One snapshot of ``/proc/PID/status``.

    Raises:
        ValueError: a line that every kernel writes is missing.
    """
    lines: dict[bytes, bytes] = {}
    for line in raw.splitlines():
        key, colon, value = line.partition(b":\t")
        if colon:
            lines.setdefault(key, value)
    try:
        return Status(
            comm=lines[b"Name"].decode("utf-8", "replace"),
            ppid=int(lines[b"PPid"]),
            tracer_pid=int(lines[b"TracerPid"]),
            uids=_four(lines[b"Uid"]),
            gids=_four(lines[b"Gid"]),
            groups=tuple(map(int, lines[b"Groups"].split())),
            ns_pids=tuple(map(int, lines.get(b"NSpid", lines[b"Pid"]).split())),
            session=int(lines.get(b"NSsid", b"0").split()[0]),
            zombie=lines[b"State"][:1] in b"ZX",
        )
    except (KeyError, IndexError) as error:
        raise ValueError(f"cannot parse the status of a process: no {error} line") from error


def _four(value: bytes) -> tuple[int, int, int, int]:
    real, effective, saved, file_system = map(int, value.split())
    return real, effective, saved, file_system


def landmarks(raw: bytes) -> tuple[bytes, ...]:
    """The stretches of ``status`` that stay byte for byte the same while the process is what it was.

    They hold: name; pid, parent, tracer and ids; groups, namespaced pids and session; and the size of the executable
    mappings. Left out are state, counters and resident sizes. Where that shape is not found it is the whole status.
    """
    name = raw.find(b"\nUmask:")
    ids, descriptors = raw.find(b"\nTgid:"), raw.find(b"\nFDSize:")
    groups, sizes = raw.find(b"\nGroups:"), raw.find(b"\nVmPeak:")
    code, tables = raw.find(b"\nVmExe:"), raw.find(b"\nVmPTE:")
    if min(name, ids, descriptors, groups, sizes, code, tables) < 0:
        return (raw,)
    return raw[:name], raw[ids:descriptors], raw[groups:sizes], raw[code:tables]


def parse_stat(raw: bytes) -> Stat:
    """One snapshot of ``/proc/PID/stat``.

    Raises:
        ValueError: it does not have the fields that every kernel writes.
    """
    fields = raw[raw.rfind(b")") + 2 :].split(b" ", 20)
    if len(fields) < 21:
        raise ValueError(
            f"cannot parse the stat line of a process: got {len(fields)} fields after the name, expected 21"
        )
    return Stat(
        state=fields[0].decode("ascii", "replace"),
        ppid=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        tty_nr=int(fields[4]),
        start_ticks=int(fields[19]),
    )
