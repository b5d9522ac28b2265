"""bpf(2): the commands that the recorder needs, through ctypes. Layouts: ``union bpf_attr`` of linux/bpf.h.

Every function returns a descriptor that the caller owns, or raises OSError with the kernel's errno.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361}
_NUMBER = _NUMBERS.get(platform.machine(), -1)
_ATTR_BYTES = 144
_LOG_BYTES = 1 << 20
_NAME_MAX = 15

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE = 0, 1, 2
PROG_LOAD, OBJ_PIN, OBJ_GET, GET_INFO = 5, 6, 7, 15
RAW_TRACEPOINT_OPEN, BTF_LOAD, LINK_CREATE, ITER_CREATE = 17, 18, 28, 33
RDONLY = 1 << 3

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)


_fast_syscall = _libc["syscall"]  # without argument types: prepared arguments are not converted again
_fast_syscall.restype = ctypes.c_long


class VerifierError(OSError):
    """The verifier rejected a program; ``log`` says why."""

    def __init__(self, number: int, log: str) -> None:
        super().__init__(number, os.strerror(number))
        self.log = log


def address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    """Where a buffer lies."""
    return ctypes.addressof(buffer)


def buffer_of(data: bytes) -> ctypes.Array[ctypes.c_char]:
    """A buffer that holds ``data``."""
    return (ctypes.c_char * max(1, len(data))).from_buffer_copy(data or b"\0")


def call(command: int, attr: bytes) -> int:
    """One command. Raises OSError; ENOSYS where the number of the system call is not known."""
    if _NUMBER < 0:
        raise OSError(errno.ENOSYS, f"bpf(2) has no known number on {platform.machine()}")
    block = buffer_of(attr.ljust(_ATTR_BYTES, b"\0"))
    result: int = _syscall(_NUMBER, command, ctypes.addressof(block), _ATTR_BYTES)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def map_create(  # noqa: PLR0917 - the fields of the command, in their order
    kind: int,
    key_size: int,
    value_size: int,
    entries: int,
    flags: int,
    name: str,
    types: tuple[int, int, int] = (0, 0, 0),
) -> int:
    """A map; ``types`` are a BTF descriptor and the type ids of key and value."""
    label = name.encode()[:_NAME_MAX].ljust(16, b"\0")
    attr = struct.pack("<7I16sI3I", kind, key_size, value_size, entries, flags, 0, 0, label, 0, *types)
    return call(MAP_CREATE, attr)


def btf_load(data: bytes) -> int:
    """Type information, given to the kernel."""
    block = buffer_of(data)
    return call(BTF_LOAD, struct.pack("<QQIII", address(block), 0, len(data), 0, 0))


def program_load(kind: int, code: bytes, licence: str, name: str, *, attach_type: int, attach_btf_id: int = 0) -> int:
    """A program. Raises VerifierError with the verifier's log, or OSError where the kernel refused before it looked."""
    block, text = buffer_of(code), buffer_of(licence.encode() + b"\0")

    def attempt(level: int, log: ctypes.Array[ctypes.c_char] | None) -> int:
        where, room = (address(log), len(log)) if log is not None else (0, 0)
        head = struct.pack("<IIQQIIQII", kind, len(code) // 8, address(block), address(text), level, room, where, 0, 0)
        label = name.encode()[:_NAME_MAX].ljust(16, b"\0")
        tail = struct.pack("<II", 0, attach_type) + bytes(36) + struct.pack("<I", attach_btf_id)
        return call(PROG_LOAD, head + label + tail)

    try:
        return attempt(0, None)
    except OSError as first:
        if first.errno in {errno.EPERM, errno.ENOSYS}:
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return attempt(1, log)
        except OSError as error:
            raise VerifierError(error.errno or 0, log.value.decode("utf-8", "replace")) from None


def raw_tracepoint_open(program: int) -> int:
    """A link that runs a tracing program at the place its type names."""
    return call(RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program))


def link_create(program: int, target: int, attach_type: int) -> int:
    """A link between a program and a target (a control group directory; 0 for an iterator)."""
    return call(LINK_CREATE, struct.pack("<IIII", program, target, attach_type, 0))


def iterator_create(link: int) -> int:
    """A file whose reading runs an iterator to its end."""
    return call(ITER_CREATE, struct.pack("<II", link, 0))


def pin(path: str, fd: int) -> None:
    """Give an object a name in the BPF file system."""
    block = buffer_of(os.fsencode(path) + b"\0")
    call(OBJ_PIN, struct.pack("<QII", address(block), fd, 0))


def pinned(path: str, flags: int = 0) -> int:
    """The object of that name."""
    block = buffer_of(os.fsencode(path) + b"\0")
    return call(OBJ_GET, struct.pack("<QII", address(block), 0, flags))


def info(fd: int, size: int) -> bytes:
    """The first ``size`` bytes of what the kernel says about an object; what it does not know stays zero."""
    block = ctypes.create_string_buffer(size)
    call(GET_INFO, struct.pack("<IIQ", fd, size, address(block)))
    return block.raw


def map_shape(fd: int) -> tuple[int, int, int, int, int]:
    """Type, key size, value size, entries and flags of a map."""
    kind, _, key, value, entries, flags = struct.unpack_from("<6I", info(fd, 24))
    return kind, key, value, entries, flags


def recursion_misses(fd: int) -> int:
    """How often a program did not run because it was running already."""
    return int.from_bytes(info(fd, 216)[208:216], "little")


def map_memory(fd: int) -> int:
    """Bytes that a map occupies, as the kernel accounts them."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith("memlock:")), 0)


def map_get(fd: int, key: bytes, value_size: int) -> bytes:
    """One value. Raises OSError ENOENT."""
    keys, value = buffer_of(key), ctypes.create_string_buffer(value_size)
    call(MAP_LOOKUP, struct.pack("<IIQQQ", fd, 0, address(keys), address(value), 0))
    return value.raw


def map_set(fd: int, key: bytes, value: bytes) -> None:
    """Write one value."""
    keys, values = buffer_of(key), buffer_of(value)
    call(MAP_UPDATE, struct.pack("<IIQQQ", fd, 0, address(keys), address(values), 0))


class Lookup:
    """Repeated lookups in one map, without allocating: the hot path. Not for two threads at once."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self.key = ctypes.create_string_buffer(key_size)
        self.value = ctypes.create_string_buffer(value_size)
        attr = struct.pack("<IIQQQ", fd, 0, address(self.key), address(self.value), 0)
        self._attr = buffer_of(attr)
        self._arguments = (
            ctypes.c_long(_NUMBER),
            ctypes.c_int(MAP_LOOKUP),
            ctypes.c_void_p(address(self._attr)),
            ctypes.c_uint(len(attr)),
        )

    def find(self) -> bool:
        """Look up what stands in ``key``; the answer is in ``value``. Raises OSError other than "there is none"."""
        if _fast_syscall(*self._arguments) == 0:
            return True
        number = ctypes.get_errno()
        if number != errno.ENOENT:
            raise OSError(number, os.strerror(number))
        return False


@contextlib.contextmanager
def closing(*fds: int) -> Iterator[None]:
    """Close descriptors on leaving."""
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)
