"""Numbers and layouts of the macOS interfaces that attestation reads, little-endian 64-bit.

Sources, all of xnu-11417.101.15: bsd/sys/proc_info.h, proc_info_private.h, codesign.h, event.h, un.h, ucred.h,
sysctl.h, osfmk/kern/cs_blobs.h, bsd/kern/kern_prot.c (the words of an audit token). Layouts are pinned byte for byte
by tests; a kernel that answers with another size is refused, never reinterpreted.
"""

from __future__ import annotations

import ctypes

SOL_LOCAL = 0
LOCAL_PEERCRED = 1
LOCAL_PEERPID = 2
LOCAL_PEERTOKEN = 6

PROC_PIDLISTFDS = 1
PROC_PIDTBSDINFO = 3
PROC_PIDVNODEPATHINFO = 9
PROC_PIDT_SHORTBSDINFO = 13
PROC_PIDUNIQIDENTIFIERINFO = 17
PROC_PIDFDVNODEINFO = 1
PROC_PIDFDVNODEPATHINFO = 2
PROC_PIDFDSOCKETINFO = 3
PROC_PIDFDPIPEINFO = 6
FDTYPE_VNODE = 1
FDTYPE_SOCKET = 2
FDTYPE_PIPE = 6
SOCKINFO_UN = 3
PATH_BYTES = 4096
"""PROC_PIDPATHINFO_MAXSIZE."""

PROC_FLAG_TRACED = 2
PROC_FLAG_INEXIT = 4
PROC_FLAG_CONTROLT = 0x80
SZOMB = 5

CS_OPS_STATUS = 0
CS_OPS_CDHASH = 5
CS_OPS_IDENTITY = 11
CS_OPS_TEAMID = 14
CS_OPS_VALIDATION_CATEGORY = 17
CDHASH_BYTES = 20

CTL_KERN = 1
KERN_PROCARGS2 = 49

EVFILT_PROC = -5
EV_ADD = 0x0001
EV_RECEIPT = 0x0040
EV_ERROR = 0x4000
NOTE_EXIT = 0x80000000
NOTE_EXEC = 0x20000000

ACL_TYPE_EXTENDED = 0x100


class AuditToken(ctypes.Structure):
    """audit_token_t: eight words, of which csops_audittoken compares 5 (pid) and 7 (pid version)."""

    val: ctypes.Array[ctypes.c_uint32]
    _fields_ = (("val", ctypes.c_uint32 * 8),)


class Xucred(ctypes.Structure):
    """struct xucred, the credentials of the moment of connect()."""

    cr_version: int
    cr_uid: int
    cr_ngroups: int
    cr_groups: ctypes.Array[ctypes.c_uint32]
    _fields_ = (
        ("cr_version", ctypes.c_uint32),
        ("cr_uid", ctypes.c_uint32),
        ("cr_ngroups", ctypes.c_int16),
        ("cr_groups", ctypes.c_uint32 * 16),
    )


class BsdInfo(ctypes.Structure):
    """struct proc_bsdinfo; for processes of the same user only, unless we are root."""

    pbi_flags: int
    pbi_pid: int
    e_tdev: int
    pbi_start_tvsec: int
    pbi_start_tvusec: int
    _fields_ = (
        ("pbi_flags", ctypes.c_uint32),
        ("pbi_status", ctypes.c_uint32),
        ("pbi_xstatus", ctypes.c_uint32),
        ("pbi_pid", ctypes.c_uint32),
        ("pbi_ppid", ctypes.c_uint32),
        ("pbi_uid", ctypes.c_uint32),
        ("pbi_gid", ctypes.c_uint32),
        ("pbi_ruid", ctypes.c_uint32),
        ("pbi_rgid", ctypes.c_uint32),
        ("pbi_svuid", ctypes.c_uint32),
        ("pbi_svgid", ctypes.c_uint32),
        ("rfu_1", ctypes.c_uint32),
        ("pbi_comm", ctypes.c_char * 16),
        ("pbi_name", ctypes.c_char * 32),
        ("pbi_nfiles", ctypes.c_uint32),
        ("pbi_pgid", ctypes.c_uint32),
        ("pbi_pjobc", ctypes.c_uint32),
        ("e_tdev", ctypes.c_uint32),
        ("e_tpgid", ctypes.c_uint32),
        ("pbi_nice", ctypes.c_int32),
        ("pbi_start_tvsec", ctypes.c_uint64),
        ("pbi_start_tvusec", ctypes.c_uint64),
    )


class ShortBsdInfo(ctypes.Structure):
    """struct proc_bsdshortinfo; every process may be asked about."""

    pbsi_pid: int
    pbsi_ppid: int
    pbsi_status: int
    pbsi_comm: bytes
    pbsi_flags: int
    pbsi_uid: int
    pbsi_gid: int
    pbsi_ruid: int
    pbsi_rgid: int
    pbsi_svuid: int
    pbsi_svgid: int
    _fields_ = (
        ("pbsi_pid", ctypes.c_uint32),
        ("pbsi_ppid", ctypes.c_uint32),
        ("pbsi_pgid", ctypes.c_uint32),
        ("pbsi_status", ctypes.c_uint32),
        ("pbsi_comm", ctypes.c_char * 16),
        ("pbsi_flags", ctypes.c_uint32),
        ("pbsi_uid", ctypes.c_uint32),
        ("pbsi_gid", ctypes.c_uint32),
        ("pbsi_ruid", ctypes.c_uint32),
        ("pbsi_rgid", ctypes.c_uint32),
        ("pbsi_svuid", ctypes.c_uint32),
        ("pbsi_svgid", ctypes.c_uint32),
        ("pbsi_rfu", ctypes.c_uint32),
    )


class UniqueInfo(ctypes.Structure):
    """struct proc_uniqidentifierinfo (flavour 17); every process may be asked about."""

    p_uniqueid: int
    p_puniqueid: int
    p_idversion: int
    p_orig_ppidversion: int
    _fields_ = (
        ("p_uuid", ctypes.c_uint8 * 16),
        ("p_uniqueid", ctypes.c_uint64),
        ("p_puniqueid", ctypes.c_uint64),
        ("p_idversion", ctypes.c_int32),
        ("p_orig_ppidversion", ctypes.c_int32),
        ("p_reserve2", ctypes.c_uint64),
        ("p_reserve3", ctypes.c_uint64),
    )


class VnodeStat(ctypes.Structure):
    """struct vinfo_stat."""

    vst_mode: int
    vst_rdev: int
    _fields_ = (
        ("vst_dev", ctypes.c_uint32),
        ("vst_mode", ctypes.c_uint16),
        ("vst_nlink", ctypes.c_uint16),
        ("vst_ino", ctypes.c_uint64),
        ("vst_uid", ctypes.c_uint32),
        ("vst_gid", ctypes.c_uint32),
        ("vst_times", ctypes.c_int64 * 8),
        ("vst_size", ctypes.c_int64),
        ("vst_blocks", ctypes.c_int64),
        ("vst_blksize", ctypes.c_int32),
        ("vst_flags", ctypes.c_uint32),
        ("vst_gen", ctypes.c_uint32),
        ("vst_rdev", ctypes.c_uint32),
        ("vst_qspare", ctypes.c_int64 * 2),
    )


class VnodePath(ctypes.Structure):
    """struct vnode_info_path."""

    vip_path: bytes
    _fields_ = (
        ("vi_stat", VnodeStat),
        ("vi_type", ctypes.c_int32),
        ("vi_pad", ctypes.c_int32),
        ("vi_fsid", ctypes.c_int32 * 2),
        ("vip_path", ctypes.c_char * 1024),
    )


class Directories(ctypes.Structure):
    """struct proc_vnodepathinfo: working and root directory."""

    pvi_cdir: VnodePath
    pvi_rdir: VnodePath
    _fields_ = (("pvi_cdir", VnodePath), ("pvi_rdir", VnodePath))


class FileInfo(ctypes.Structure):
    """struct proc_fileinfo."""

    fi_openflags: int
    _fields_ = (
        ("fi_openflags", ctypes.c_uint32),
        ("fi_status", ctypes.c_uint32),
        ("fi_offset", ctypes.c_int64),
        ("fi_type", ctypes.c_int32),
        ("fi_guardflags", ctypes.c_uint32),
    )


class FdVnode(ctypes.Structure):
    """struct vnode_fdinfo."""

    vi_stat: VnodeStat
    _fields_ = (
        ("pfi", FileInfo),
        ("vi_stat", VnodeStat),
        ("vi_type", ctypes.c_int32),
        ("vi_pad", ctypes.c_int32),
        ("vi_fsid", ctypes.c_int32 * 2),
    )


class FdVnodePath(ctypes.Structure):
    """struct vnode_fdinfowithpath."""

    pvip: VnodePath
    _fields_ = (("pfi", FileInfo), ("pvip", VnodePath))


class FdPipe(ctypes.Structure):
    """struct pipe_fdinfo. Handles are opaque numbers, equal in every process."""

    pipe_handle: int
    pipe_peerhandle: int
    _fields_ = (
        ("pfi", FileInfo),
        ("pipe_stat", VnodeStat),
        ("pipe_handle", ctypes.c_uint64),
        ("pipe_peerhandle", ctypes.c_uint64),
        ("pipe_status", ctypes.c_int32),
        ("rfu_1", ctypes.c_int32),
    )


class FdSocket(ctypes.Structure):
    """struct socket_fdinfo, of which the head of the union for Unix sockets is used."""

    soi_so: int
    soi_kind: int
    unsi_conn_so: int
    _fields_ = (
        ("pfi", FileInfo),
        ("soi_stat", VnodeStat),
        ("soi_so", ctypes.c_uint64),
        ("soi_pcb", ctypes.c_uint64),
        ("soi_type", ctypes.c_int32),
        ("soi_protocol", ctypes.c_int32),
        ("soi_family", ctypes.c_int32),
        ("soi_words", ctypes.c_int16 * 7),
        ("soi_error", ctypes.c_uint16),
        ("soi_oobmark", ctypes.c_uint32),
        ("soi_rcv", ctypes.c_uint32 * 6),
        ("soi_snd", ctypes.c_uint32 * 6),
        ("soi_kind", ctypes.c_int32),
        ("rfu_1", ctypes.c_uint32),
        ("unsi_conn_so", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 520),
    )


class FdEntry(ctypes.Structure):
    """struct proc_fdinfo."""

    proc_fd: int
    proc_fdtype: int
    _fields_ = (("proc_fd", ctypes.c_int32), ("proc_fdtype", ctypes.c_uint32))


class Kevent(ctypes.Structure):
    """struct kevent; four-byte packing changes nothing on 64 bits."""

    ident: int
    filter: int
    flags: int
    fflags: int
    data: int
    _fields_ = (
        ("ident", ctypes.c_uint64),
        ("filter", ctypes.c_int16),
        ("flags", ctypes.c_uint16),
        ("fflags", ctypes.c_uint32),
        ("data", ctypes.c_int64),
        ("udata", ctypes.c_void_p),
    )


class Timespec(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("tv_sec", ctypes.c_int64), ("tv_nsec", ctypes.c_int64))


class Statfs(ctypes.Structure):
    """struct statfs with 64-bit inodes."""

    f_fstypename: bytes
    _fields_ = (
        ("f_head", ctypes.c_uint8 * 72),
        ("f_fstypename", ctypes.c_char * 16),
        ("f_rest", ctypes.c_uint8 * 2080),
    )
