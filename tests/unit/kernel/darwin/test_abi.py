"""Layouts, against bytes written down word by word from Apple's headers (and compared with a C compiler's offsets)."""

from __future__ import annotations

import ctypes
import struct

import pytest

from attestd.kernel.darwin import abi

SIZES = {
    "AuditToken": 32, "Xucred": 76, "BsdInfo": 136, "ShortBsdInfo": 64, "UniqueInfo": 56, "VnodeStat": 136,
    "VnodePath": 1176, "Directories": 2352, "FileInfo": 24, "FdVnode": 176, "FdVnodePath": 1200, "FdPipe": 184,
    "FdSocket": 792, "FdEntry": 8, "Kevent": 32, "Timespec": 16, "Statfs": 2168,
}  # fmt: skip
"""Of xnu-11417.101.15, by sizeof of a C compiler on the header."""
TOKEN = bytes.fromhex("f5010000f501000014000000f501000014000000b3a80000a3860100670a0c00")
"""uid 501, gid 20, pid 43187, session 100003, version 789095."""
UNIQUE = bytes.fromhex("4c4c44f955553144a1e2c0ffee000001d204010000000000c603010000000000670a0c00fe0a0b00" + "00" * 16)
SHORT = bytes.fromhex(
    "b3a80000b2a80000b3a80000020000007a73680000000000000000000000000010400000"
    "f501000014000000f501000014000000f50100001400000000000000"
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(SIZES))
def test_sizes_are_those_of_the_headers(name: str):
    """A structure has the size that the kernel copies."""
    assert ctypes.sizeof(getattr(abi, name)) == SIZES[name]


def test_an_audit_token():
    """The words stand where csops_audittoken looks for them."""
    token = abi.AuditToken.from_buffer_copy(TOKEN)
    assert list(token.val) == [501, 501, 20, 501, 20, 43187, 100003, 789095]


def test_the_unique_ids():
    """Ids, the version and the parent's version at fork are read from their places."""
    found = abi.UniqueInfo.from_buffer_copy(UNIQUE)
    ids = (found.p_uniqueid, found.p_puniqueid, found.p_idversion, found.p_orig_ppidversion)
    assert ids == (66770, 66502, 789095, 723710)


def test_the_short_information():
    """Parent, name, flags and the three uids are read from their places."""
    found = abi.ShortBsdInfo.from_buffer_copy(SHORT)
    assert (found.pbsi_pid, found.pbsi_ppid, found.pbsi_status, found.pbsi_comm) == (43187, 43186, 2, b"zsh")
    assert found.pbsi_flags == 0x4010
    assert (found.pbsi_uid, found.pbsi_ruid, found.pbsi_svuid) == (501, 501, 501)


def test_the_whole_information():
    """Terminal and start time of proc_bsdinfo are read from their places."""
    raw = struct.pack("<12I16s32s5IiQQ", *range(12), b"zsh", b"zsh", 1, 2, 3, 0x10000003, 5, 0, 1_763_648_754, 250_000)
    found = abi.BsdInfo.from_buffer_copy(raw)
    assert (found.pbi_pid, found.e_tdev) == (3, 0x10000003)
    assert (found.pbi_start_tvsec, found.pbi_start_tvusec) == (1_763_648_754, 250_000)


def test_the_ends_of_a_socket_and_a_pipe():
    """The opaque numbers of both ends are read from their offsets."""
    raw = bytearray(792)
    struct.pack_into("<Q", raw, 160, 11)
    struct.pack_into("<i", raw, 256, abi.SOCKINFO_UN)
    struct.pack_into("<Q", raw, 264, 12)
    found = abi.FdSocket.from_buffer_copy(bytes(raw))
    assert (found.soi_so, found.soi_kind, found.unsi_conn_so) == (11, abi.SOCKINFO_UN, 12)
    pipe = abi.FdPipe.from_buffer_copy(bytes(160) + struct.pack("<QQ", 13, 14) + bytes(8))
    assert (pipe.pipe_handle, pipe.pipe_peerhandle) == (13, 14)


def test_an_event():
    """A kevent of a process has its filter, flags and notes in their places."""
    raw = struct.pack("<QhHIqQ", 43187, -5, 0x41, 0xA0000000, 0, 0)
    event = abi.Kevent.from_buffer_copy(raw)
    assert (event.ident, event.filter, event.flags) == (43187, abi.EVFILT_PROC, abi.EV_ADD | abi.EV_RECEIPT)
    assert event.fflags == abi.NOTE_EXIT | abi.NOTE_EXEC
