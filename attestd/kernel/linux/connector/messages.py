"""The messages of the proc connector (linux/cn_proc.h, linux/connector.h): pure layouts, no I/O.

Every datagram is one netlink header (16 bytes), one connector header (20) and one event (40): 76 bytes. The event is
read into a slot of 96 bytes; what a newer kernel appends is cut off. ``sequence`` counts the events of one CPU, so a
jump is a number of lost events, but only while no filter is set: filtered events are counted too.
"""

from __future__ import annotations

import struct

NETLINK_CONNECTOR = 11
GROUP = 1
"""CN_IDX_PROC, as a multicast group and as its bit in an address."""

ACK = 0
FORK = 0x1
EXEC = 0x2
UID = 0x4
COMM = 0x200
EXIT = 0x80000000

DATAGRAM = 76
SLOT = 96
EVENT = struct.Struct("=I12xI4xI8xIIQIIII8s20x")
"""Of one slot: length, connector index, sequence, kind, cpu, time (ns, monotonic), four numbers and the rest."""
NO_CPU = 0xFFFFFFFF
"""What older kernels write as the CPU of an answer to a subscription, which they do not count."""

_NLMSG_DONE = 3
_CN_IDX_PROC = 1
_CN_VAL_PROC = 1
_LISTEN = 1
_IGNORE = 2


def subscription(token: int, *, listen: bool = True) -> bytes:
    """The message that starts (or ends) delivery of every event. ``token``, 32 bits, comes back plus one."""
    body = struct.pack("=IIIIHHI", _CN_IDX_PROC, _CN_VAL_PROC, 0, token, 4, 0, _LISTEN if listen else _IGNORE)
    return struct.pack("=IHHII", 16 + len(body), _NLMSG_DONE, 0, 0, 0) + body


def acknowledged(datagram: bytes, token: int) -> int | None:
    """The error number (0: none) if ``datagram`` answers the subscription with ``token``; None for anything else."""
    if len(datagram) < DATAGRAM:
        return None
    (ack,) = struct.unpack_from("=I", datagram, 28)
    (kind,) = struct.unpack_from("=I", datagram, 36)
    (error,) = struct.unpack_from("=I", datagram, 52)
    return error if kind == ACK and ack == (token + 1) & 0xFFFFFFFF else None
