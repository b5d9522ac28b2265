"""What of BPF this kernel offers, tried with the smallest programs: they are loaded, never attached, and closed.

A kernel may refuse a program for what it does or for who asks. EPERM is the latter: then nothing is known.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
import sys

from attestd.kernel.linux.recorder import bpf
from attestd.kernel.linux.recorder.btf import Btf, Kind
from attestd.kernel.linux.recorder.failures import FormatError
from attestd.kernel.linux.recorder.load import KERNEL_BTF, storage_types

if sys.platform != "linux":
    raise ImportError("cannot use BPF on this platform: it needs Linux")

_SOCK_ADDR, _TRACING, _TRACE_RAW_TP = 18, 26, 23
_TASK_STORAGE = 29
_LICENCE = "Dual MIT/GPL"
_GET_TASK_BTF = 158
_RETURN_1 = struct.pack("<BBhi", 0xB7, 0, 0, 1) + struct.pack("<BBhi", 0x95, 0, 0, 0)
_EVENTS = ("fork", "exec", "exit")


class NotProbedError(Exception):
    """It was not tried; the text says why."""


def kernel_types() -> str:
    """Whether the kernel has type information of its own. Raises OSError."""
    return f"{os.stat(KERNEL_BTF).st_size >> 10} KiB in {KERNEL_BTF}"


def traced_events() -> str:
    """Whether programs can be attached to fork, exec and exit. Raises OSError, NotProbedError."""
    for name in _EVENTS:
        wanted = f"btf_trace_sched_process_{name}"
        found = _types().named(wanted, frozenset({Kind.TYPEDEF}))
        if not found:
            raise OSError(errno.ENOENT, f"this kernel has no {wanted}")
        _try(_TRACING, _RETURN_1, _TRACE_RAW_TP, found[0].type_id)
    return "programs at fork, exec and exit are accepted"


def task_storage() -> str:
    """Whether a process can carry the words of its exec. Raises OSError, NotProbedError."""
    try:
        types = bpf.btf_load(storage_types(8))
        with bpf.closing(types):
            os.close(bpf.map_create(_TASK_STORAGE, 4, 8, 0, 1, "probe", (types, 1, 2)))
    except PermissionError as error:
        raise NotProbedError("that takes CAP_BPF") from error
    return "works"


def connect_inet() -> str:
    """Whether connects of TCP sockets can be seen. Raises OSError, NotProbedError."""
    for name in ("INET4", "INET6"):
        _try(_SOCK_ADDR, _RETURN_1, _attach_type(f"BPF_CGROUP_{name}_CONNECT"))
    return "programs at connect are accepted"


def connect_unix() -> str:
    """Whether connects of Unix sockets can be seen. Raises OSError, NotProbedError."""
    _try(_SOCK_ADDR, _RETURN_1, _attach_type("BPF_CGROUP_UNIX_CONNECT"))
    return "programs at connect are accepted"


def task_in_cgroup_programs() -> str:
    """Whether a program at connect learns which process calls. Raises OSError, NotProbedError."""
    code = struct.pack("<BBhi", 0x85, 0, 0, _GET_TASK_BTF) + _RETURN_1
    _try(_SOCK_ADDR, code, _attach_type("BPF_CGROUP_INET4_CONNECT"))
    return "programs at connect know the calling process"


def _try(kind: int, code: bytes, attach_type: int, attach_btf_id: int = 0) -> None:
    try:
        os.close(bpf.program_load(kind, code, _LICENCE, "probe", attach_type=attach_type, attach_btf_id=attach_btf_id))
    except PermissionError as error:
        if error.errno == errno.EPERM:
            raise NotProbedError("that takes CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN") from error
        raise


def _attach_type(name: str) -> int:
    for each in _types().named("bpf_attach_type", frozenset({Kind.ENUM})):
        for label, value in _types().enumerators(each):
            if label == name:
                return value
    raise OSError(errno.ENOENT, f"this kernel has no {name}")


def forget() -> None:
    """Give back the type information that probes have read: megabytes."""
    _types.cache_clear()


@functools.lru_cache(maxsize=1)
def _types() -> Btf:
    """The kernel's type information, read once; it cannot change while the kernel runs."""
    with open(KERNEL_BTF, "rb") as file:
        data = file.read()
    try:
        return Btf(data)
    except FormatError as error:
        raise OSError(errno.EPROTO, str(error)) from error
