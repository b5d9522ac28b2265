"""Numbers and layouts of the Linux interfaces that Python 3.11 has no names for.

Sources: include/uapi/asm-generic/socket.h, linux/pidfd.h, linux/fs.h, linux/magic.h. Every ioctl here is optional at
run time: a caller treats ``OSError`` as "this kernel does not have it", never as an answer.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import NamedTuple

SO_PEERGROUPS = 59
SO_PEERPIDFD = 77
SO_PEERSEC = 31

PIDFS_MAGIC = 0x50494446
TMPFS_MAGIC = 0x01021994

FILE_SYSTEMS = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xE0F5E1E2: "erofs",
    0x73717368: "squashfs",
    TMPFS_MAGIC: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlay",
    0x65735546: "fuse",
    0x6969: "nfs",
    0x01021997: "9p",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x9660: "iso9660",
    0x4D44: "vfat",
    0x958458F6: "hugetlbfs",
    0xF15F: "ecryptfs",
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x5345434D: "secretmem",
    PIDFS_MAGIC: "pidfs",
}

_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, 64 bytes)
_INFO_REQUEST = struct.pack("<Q", 0x07) + bytes(56)  # PID | CREDS | CGROUPID
_INFO = struct.Struct("<8xQ4I")
_FS_IOC_GETVERSION = 0x80087601  # _IOR('v', 1, long)

_libc = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES = 256  # struct statfs is 120 bytes on 64-bit Linux


class PidfdInfo(NamedTuple):
    """What PIDFD_GET_INFO says of a task that has not been reaped: numbers as our namespaces see them."""

    cgroup_id: int
    pid: int
    tgid: int
    ppid: int
    ruid: int


def pidfd_info(pidfd: int) -> PidfdInfo:
    """Ask the kernel about the process behind ``pidfd``.

    Raises:
        ProcessLookupError: it has been reaped.
        OSError: EREMOTE - it is outside our pid namespace; ENOTTY or EINVAL - a kernel before 6.13.
    """
    info = PidfdInfo._make(_INFO.unpack_from(fcntl.ioctl(pidfd, _PIDFD_GET_INFO, _INFO_REQUEST)))
    if info.pid == 0:
        raise ProcessLookupError(errno.ESRCH, "the process has been reaped")
    return info


def pidfd_ppid(pidfd: int) -> int:
    """The parent's pid alone, for the hot path. Raises as ``pidfd_info``; 0 also for a parent outside our namespace."""
    answer: bytes = fcntl.ioctl(pidfd, _PIDFD_GET_INFO, _INFO_REQUEST)
    return int.from_bytes(answer[24:28], "little")


def pidfd_pid(pidfd: int) -> int:
    """The pid behind a pidfd: -1 if it has exited and was reaped, 0 if it is outside our pid namespace."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("Pid:"):
                return int(line[4:])
    return -1


def generation(fd: int) -> int:
    """The inode's generation number: it changes when the inode number is used again. 0 where there is none."""
    try:
        answer: bytes = fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8))
    except OSError:
        return 0
    return int.from_bytes(answer[:4], "little")


def fs_magic(fd: int) -> int:
    """``f_type`` of fstatfs(2). Raises OSError."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(fd, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int.from_bytes(buffer.raw[:8], "little") & 0xFFFFFFFF


def fs_name(fd: int) -> str:
    """Name of the file system behind ``fd``; an unknown one is its magic number in hex, 0x first. Raises OSError."""
    magic = fs_magic(fd)
    return FILE_SYSTEMS.get(magic, f"{magic:#x}")
