"""What the kernel recorder, process events, TCP peers and content signatures need, each probed by using it.

Rules: a probe leaves nothing behind: programs are loaded and never attached, subscriptions end at once. What this
process may not try is not known, and says which right it would take. What the kernel only names in its type information
is believed, for no right is needed to read that. Asked for by ``doctor`` only: all of it takes a tenth of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from attestd.errors import AttestdError
from attestd.evidence.protocol import Feature
from attestd.kernel.linux.connector.feed import Feed
from attestd.kernel.linux.features import capability, setting
from attestd.kernel.linux.recorder import pins, probes
from attestd.kernel.linux.recorder.follow import namespace_objection
from attestd.kernel.linux.tcp.diag import Diag

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_CAP_NET_ADMIN, _CAP_PERFMON, _CAP_BPF = 12, 38, 39
_SYS_PIDFD_GETFD = 438
_FS_IOC_MEASURE_VERITY = 0xC0046686
_SECURITY = "/sys/kernel/security"
_LOADER = "run attestd-recorder load as root; the daemon needs no such right"
_UNPROBED = {"recorder": "attestd-recorder load tries it, and says what it had to leave out"}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facility:
    """One thing that the kernel may offer: what its absence costs, how to get it, and how to find out."""

    name: str
    group: str
    cost: str
    remedy: str
    use: Callable[[], str]
    """Says in words that it works. Raises OSError where it does not, ``probes.NotProbedError`` where it may not ask."""


def probe() -> tuple[Feature, ...]:
    """Every facility of ``TABLE`` and the capabilities of a loader."""
    loader = tuple(
        capability(name, bit, "this process could not load the kernel recorder itself", _LOADER, "recorder")
        for name, bit in (("cap_bpf", _CAP_BPF), ("cap_perfmon", _CAP_PERFMON), ("cap_net_admin", _CAP_NET_ADMIN))
    )
    found = tuple(_probed(each) for each in TABLE)
    probes.forget()
    return (*loader, *found)


def _probed(facility: Facility) -> Feature:
    present, known = True, True
    try:
        detail = facility.use()
    except probes.NotProbedError as error:
        present, known, detail = False, False, f"not probed: {error}"
    except AttestdError as error:
        present, detail = False, error.message
    except OSError as error:
        present, detail = False, (error.strerror or str(error)).lower()
    remedy = facility.remedy if known else _UNPROBED.get(facility.group, facility.remedy)
    return Feature(
        name=facility.name,
        present=present,
        detail=detail,
        remedy="" if present else remedy,
        cost=facility.cost,
        group=facility.group,
        known=known,
    )


def _namespaces() -> str:
    objection = namespace_objection()
    if objection:
        raise OSError(errno.EXDEV, objection)
    return "this daemon is in the initial pid and time namespaces"


def _bpf_file_system() -> str:
    if not pins.is_bpf(pins.BPF_FS):
        raise OSError(errno.ENODEV, f"no bpf file system is mounted on {pins.BPF_FS}")
    return f"mounted on {pins.BPF_FS}"


def _cgroup2() -> str:
    found = pins.cgroup_root()
    if found is None:
        raise OSError(errno.ENODEV, "the root of the cgroup2 hierarchy is not mounted here")
    return f"its root is mounted on {found}"


def _lockdown() -> str:
    mode = setting(f"{_SECURITY}/lockdown")
    if mode is None:
        return "not part of this kernel, or securityfs is not mounted"
    if "[confidentiality]" in mode:
        raise OSError(errno.EPERM, "the kernel is locked down to confidentiality")
    return f"lockdown is {mode.partition('[')[2].partition(']')[0] or 'off'}"


def _process_events() -> str:
    Feed(65536).close()
    return "the kernel gives process events to this process"


def _loopback_diag() -> str:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        contextlib.closing(Diag()) as diag,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            found = diag.client(accepted)
        if found.inode != os.fstat(client.fileno()).st_ino:
            raise OSError(errno.EPROTO, "the kernel named another socket")
    return "the client's socket of a loopback connection is found"


def _pidfd_getfd() -> str:
    pidfd = os.pidfd_open(os.getpid())
    try:
        copy = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, pidfd, 0)
        if copy < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        os.close(copy)
    finally:
        os.close(pidfd)
    return "works"


def _io_uring_off() -> str:
    mode = setting("/proc/sys/kernel/io_uring_disabled")
    if mode == "2":
        return "kernel.io_uring_disabled is 2"
    raise OSError(errno.EEXIST, f"kernel.io_uring_disabled is {mode}" if mode else "there is no switch for io_uring")


def _ima() -> str:
    if not os.path.isdir(_SECURITY) or not os.listdir(_SECURITY):
        raise probes.NotProbedError("securityfs is not mounted")
    if not os.path.isdir(f"{_SECURITY}/ima"):
        raise OSError(errno.ENODEV, "not part of this kernel, or not enabled")
    return "part of this kernel"


def _ipe() -> str:
    if not os.path.isdir(_SECURITY) or not os.listdir(_SECURITY):
        raise probes.NotProbedError("securityfs is not mounted")
    if setting(f"{_SECURITY}/ipe/enforce") != "1":
        raise OSError(errno.ENODEV, "not part of this kernel, or not enforcing")
    return "enforcing"


def _fs_verity() -> str:
    fd = os.open(sys.executable, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _FS_IOC_MEASURE_VERITY, bytearray(b"\x01\0\x40\0" + bytes(64)))
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise probes.NotProbedError("that is not permitted to this process") from error
        if error.errno != errno.ENODATA:
            raise
    finally:
        os.close(fd)
    return "the file system of the interpreter has it"


_UNUSED = "no level 4; this version of attestd does not use it yet, its levels end at 3"
_BTF = "use a kernel with CONFIG_DEBUG_INFO_BTF"
_CONNECT = "who connected a {} socket is not recorded: {}"

TABLE = (
    Facility(
        name="initial_namespaces",
        group="recorder",
        cost="pids and start times are not those that the kernel records: no recorder and no process events",
        remedy="run the daemon on the host, outside containers",
        use=_namespaces,
    ),
    Facility(
        name="btf",
        group="recorder",
        cost="the kernel recorder cannot be loaded",
        remedy=_BTF,
        use=probes.kernel_types,
    ),
    Facility(
        name="bpffs",
        group="recorder",
        cost="a loaded recorder cannot be kept or found",
        remedy=f"mount -t bpf bpf {pins.BPF_FS}; attestd-recorder load does it",
        use=_bpf_file_system,
    ),
    Facility(
        name="lockdown",
        group="recorder",
        cost="no program may read the memory of the kernel: no recorder",
        remedy="boot with lockdown=integrity, or off",
        use=_lockdown,
    ),
    Facility(
        name="tp_btf",
        group="recorder",
        cost="no record of fork, exec and exit: no recorder",
        remedy="use Linux 5.11 or later with CONFIG_DEBUG_INFO_BTF",
        use=probes.traced_events,
    ),
    Facility(
        name="task_storage",
        group="recorder",
        cost="words of the living are kept for 1536 processes: a daemon that starts later does not know those of more",
        remedy="use Linux 5.11 or later",
        use=probes.task_storage,
    ),
    Facility(
        name="cgroup2",
        group="recorder",
        cost="connects are not recorded: older bytes are challenged, TCP peers are scanned for",
        remedy="mount -t cgroup2 none DIRECTORY",
        use=_cgroup2,
    ),
    Facility(
        name="task_btf_in_cgroup_programs",
        group="recorder",
        cost="connects are not recorded: older bytes are challenged, TCP peers are scanned for",
        remedy="use a kernel that gives bpf_get_current_task_btf to cgroup programs (6.18 does)",
        use=probes.task_in_cgroup_programs,
    ),
    Facility(
        name="connect_inet",
        group="recorder",
        cost=_CONNECT.format("TCP", "its peer is found by scanning"),
        remedy="use Linux 4.17 or later with CONFIG_CGROUP_BPF",
        use=probes.connect_inet,
    ),
    Facility(
        name="connect_unix",
        group="recorder",
        cost=_CONNECT.format("Unix", "every client is challenged"),
        remedy="use Linux 6.7 or later with CONFIG_CGROUP_BPF",
        use=probes.connect_unix,
    ),
    Facility(
        name="process_events",
        group="recorder",
        cost="without the recorder, launchers that have exited are not known",
        remedy="use Linux 6.6 or later with CONFIG_PROC_EVENTS, or give the daemon CAP_NET_ADMIN; not in containers",
        use=_process_events,
    ),
    Facility(
        name="inet_diag",
        group="tcp",
        cost="callers over TCP cannot be attested",
        remedy="use a kernel with CONFIG_INET_DIAG, or load the modules inet_diag and tcp_diag",
        use=_loopback_diag,
    ),
    Facility(
        name="pidfd_getfd",
        group="tcp",
        cost="a holder of a TCP socket is known by inode number only",
        remedy="use Linux 5.6 or later; a sandbox may forbid it",
        use=_pidfd_getfd,
    ),
    Facility(
        name="no_hidden_holders",
        group="tcp",
        cost="a socket inside an io_uring shows no holder",
        remedy="set kernel.io_uring_disabled=2, or use Unix sockets, whose writers the kernel names",
        use=_io_uring_off,
    ),
    Facility(
        name="ima_appraisal",
        group="signature",
        cost=_UNUSED,
        remedy="a kernel with CONFIG_IMA_APPRAISE and a policy that appraises executables",
        use=_ima,
    ),
    Facility(
        name="ipe",
        group="signature",
        cost=_UNUSED,
        remedy="Linux 6.12 or later with CONFIG_SECURITY_IPE and an enforced policy",
        use=_ipe,
    ),
    Facility(
        name="fs_verity",
        group="signature",
        cost=_UNUSED,
        remedy="a kernel with CONFIG_FS_VERITY and a file system with the verity feature",
        use=_fs_verity,
    ),
)
"""In the order in which ``doctor`` shows them; docs/reference/kernel-features.md is written from this table."""
