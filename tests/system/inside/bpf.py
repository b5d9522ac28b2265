"""Names of all programs and maps that are loaded into the kernel, one a line. Needs root. Standard library only."""

import ctypes
import errno
import os
import platform

CALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
NEXT = {"program": 11, "map": 12}
OPEN = {"program": 13, "map": 14}
INFO = 15
NAME = {"program": 64, "map": 24}
"""Where the name begins in ``bpf_prog_info`` and ``bpf_map_info``."""
SIZE = 256
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    """The system call. Raises OSError."""
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(CALL, command, buffer, len(buffer))
    if result < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return result, buffer.raw


def numbers(*values):
    """As the kernel takes them, 32 bits each."""
    return b"".join(value.to_bytes(4, "little") for value in values)


def name_of(kind, each):
    """One name."""
    fd, _ = bpf(OPEN[kind], numbers(each))
    try:
        info = ctypes.create_string_buffer(SIZE)
        bpf(INFO, numbers(fd, SIZE) + ctypes.addressof(info).to_bytes(8, "little"))
        return info.raw[NAME[kind] : NAME[kind] + 16].split(b"\0")[0].decode()
    finally:
        os.close(fd)


def names(kind):
    """Of everything of a kind."""
    each = 0
    while True:
        try:
            _, answer = bpf(NEXT[kind], numbers(each))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        each = int.from_bytes(answer[4:8], "little")
        yield name_of(kind, each)


if __name__ == "__main__":
    for kind in NEXT:
        for name in names(kind):
            print(kind, name or "-", sep=":")
