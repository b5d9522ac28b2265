from __future__ import annotations

from pathlib import Path

import pytest

from attestd.kernel.linux.status import landmarks, parse_stat, parse_status

STATUS = b"""Name:\ta\\nTracerPid:\\t9
Umask:\t0022
State:\tS (sleeping)
Tgid:\t7
Ngid:\t0
Pid:\t7
PPid:\t5
TracerPid:\t0
Uid:\t1000\t1001\t1002\t1003
Gid:\t100\t101\t102\t103
FDSize:\t256
Groups:\t4 24 \n\
NStgid:\t7\t1
NSpid:\t7\t1
NSpgid:\t7\t1
NSsid:\t3\t0
Kthread:\t0
VmPeak:\t    2920 kB
VmRSS:\t    1808 kB
VmExe:\t      20 kB
VmLib:\t    1528 kB
VmPTE:\t      48 kB
Threads:\t1
"""


def test_status_is_parsed():
    """Every line that attestation uses is read."""
    status = parse_status(STATUS)
    assert (status.ppid, status.tracer_pid, status.session, status.zombie) == (5, 0, 3, False)
    assert status.uids == (1000, 1001, 1002, 1003)
    assert status.gids == (100, 101, 102, 103)
    assert status.groups == (4, 24)
    assert status.ns_pids == (7, 1)


def test_a_name_cannot_forge_a_line():
    """The kernel escapes newlines in names, so the text of a name is never a line of its own."""
    assert parse_status(STATUS).comm == "a\\nTracerPid:\\t9"


def test_a_missing_line_is_an_error():
    """A status without its parent line does not parse."""
    with pytest.raises(ValueError, match="PPid"):
        parse_status(STATUS.replace(b"PPid", b"Ppid"))


@pytest.mark.parametrize(
    "noise",
    [(b"VmRSS:\t    1808", b"VmRSS:\t    9999"), (b"S (sleeping)", b"R (running)"), (b"FDSize:\t256", b"FDSize:\t64")],
)
def test_landmarks_ignore_what_changes_by_itself(noise: tuple[bytes, bytes]):
    """State, resident size and table sizes do not count as a change."""
    later = STATUS.replace(*noise)
    assert later != STATUS
    assert all(part in later for part in landmarks(STATUS))


@pytest.mark.parametrize(
    "change",
    [
        (b"PPid:\t5", b"PPid:\t1"),
        (b"TracerPid:\t0\n", b"TracerPid:\t4\n"),
        (b"Uid:\t1000", b"Uid:\t0"),
        (b"Gid:\t100", b"Gid:\t0"),
        (b"Groups:\t4", b"Groups:\t5"),
        (b"NSsid:\t3", b"NSsid:\t7"),
        (b"VmLib:\t    1528", b"VmLib:\t    1532"),
        (b"VmExe:\t      20", b"VmExe:\t      24"),
        (b"Name:\ta", b"Name:\tb"),
    ],
)
def test_landmarks_notice_what_matters(change: tuple[bytes, bytes]):
    """Parent, tracer, ids, groups, session, name and executable memory count."""
    later = STATUS.replace(*change)
    assert later != STATUS
    assert not all(part in later for part in landmarks(STATUS))


def test_an_unknown_shape_compares_whole():
    """Where the lines are not as expected, any difference counts."""
    assert landmarks(b"Name:\tx\n") == (b"Name:\tx\n",)


def test_stat_survives_a_name_with_parentheses():
    """The line is cut at the last closing parenthesis."""
    fields = "S 5 6 3 34816 " + " ".join(str(n) for n in range(8, 22)) + " 777 0 0"
    stat = parse_stat(f"7 (a) R 1 (b) {fields}\n".encode())
    assert (stat.state, stat.ppid, stat.group, stat.session, stat.tty_nr) == ("S", 5, 6, 3, 34816)


def test_stat_start_is_field_22():
    """Our own line gives the same start time as counting fields does."""
    raw = Path("/proc/self/stat").read_bytes()
    assert parse_stat(raw).start_ticks == int(raw.rsplit(b")", 1)[1].split()[19])


def test_a_short_stat_line_is_an_error():
    """A cut line does not parse."""
    with pytest.raises(ValueError, match="expected 21"):
        parse_stat(b"7 (x) S 1 2")
