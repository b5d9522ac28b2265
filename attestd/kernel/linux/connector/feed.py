"""The socket of the proc connector: subscribe, read in batches, count what was lost.

Rules: the subscription is unfiltered, so that the sequence numbers of each CPU have no jumps but losses. The first
event of a CPU is only a start, so every CPU is made to speak once before anything is relied on (a thread writes its
own name, which is an event). A full receive buffer gives ENOBUFS once; what is still queued is older than
the loss, so the loss is reported when the queue is empty or a jump shows, whichever is first. The CPUs are then made to
speak again, which makes the number exact even when nothing else happens on them. Datagrams that the kernel did not send
are dropped.

An event is queued before the process that caused it returns to user code: what is read until the queue is empty is
everything that happened before the reading began.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import socket
import struct
import sys
import time
from typing import Protocol

from attestd.errors import AttestdError
from attestd.kernel.linux.connector import messages
from attestd.kernel.linux.connector.messages import COMM, EVENT, EXEC, EXIT, FORK, SLOT, UID

if sys.platform != "linux":
    raise ImportError(f"cannot use Linux interfaces on {sys.platform}")

BATCH = 256
RECEIVE_BYTES = 8 << 20
"""About 12 000 queued events; an ordinary user gets what net.core.rmem_max allows."""
_SO_RCVBUFFORCE = 33
_MSG_DONTWAIT = 0x40
_ANSWER_S = 1.0
_ADDRESS = struct.pack("=HHII", socket.AF_NETLINK, 0, 0, messages.GROUP)  # the kernel, to the group
_QUIET = (errno.EAGAIN, errno.EINTR)

_libc = ctypes.CDLL(None, use_errno=True)


class ConnectorUnavailableError(AttestdError):
    """The kernel's process events cannot be had; the message says why, the hint what would help."""

    code = "connector_unavailable"


class Sink(Protocol):
    """What events are given to. Times are nanoseconds of the monotonic clock."""

    def fork(self, time_ns: int, parent: int, tid: int, pid: int) -> None:
        """Thread ``tid`` of ``pid`` was made; equal numbers: a process, by process ``parent``."""

    def exec(self, time_ns: int, pid: int) -> None:
        """``pid`` executed a program."""

    def exit(self, time_ns: int, tid: int, pid: int) -> None:
        """Thread ``tid`` of ``pid`` ended."""

    def uid(self, pid: int, uid: int) -> None:
        """The real uid of ``pid`` changed."""

    def comm(self, pid: int, name: bytes) -> None:
        """``pid`` named itself."""

    def lost(self, count: int, *, fresh: bool) -> None:
        """``count`` events were lost; ``fresh``: it is not part of the loss reported last."""


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _Mmsghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_len", ctypes.c_uint),
        ("iov", ctypes.c_void_p),
        ("iov_len", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_len", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("len", ctypes.c_uint),
    )


class Feed:
    """One subscription. Not safe for several threads at once: whoever reads holds a lock of its own."""

    def __init__(self, receive_bytes: int = RECEIVE_BYTES) -> None:
        """Subscribe.

        Raises:
            ConnectorUnavailableError: no such events for us; says why.
        """
        self._socket = _bound()
        try:
            _subscribe(self._socket)
            self._enlarge(receive_bytes)
        except BaseException:
            self._socket.close()
            raise
        self._slots = bytearray(SLOT * BATCH)
        self._view = memoryview(self._slots)
        self._addresses = (ctypes.c_char * (len(_ADDRESS) * BATCH))()
        self._expected_addresses = _ADDRESS * BATCH
        self._headers = self._make_headers()
        self._next: dict[int, int] = {}
        self._at_loss: dict[int, int] = {}
        self._overrun = False
        self.silent = False
        """CPUs may have lost events that no later event has shown yet: ``speak`` settles it."""

    def fileno(self) -> int:
        """The socket, for poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the subscription. Idempotent."""
        with contextlib.suppress(OSError):
            self._socket.send(messages.subscription(0, listen=False))
        self._socket.close()

    def read(self, sink: Sink) -> bool:
        """Give one batch to ``sink``; False when the queue was empty.

        Raises:
            OSError: the socket is of no use any more.
        """
        count = _libc.recvmmsg(self._socket.fileno(), self._headers, BATCH, _MSG_DONTWAIT, None)
        if count < 0:
            return self._refused(ctypes.get_errno(), sink)
        genuine = self._addresses.raw[: count * len(_ADDRESS)] == self._expected_addresses[: count * len(_ADDRESS)]
        self._give(count, sink, genuine=genuine)
        return True

    def speak(self) -> None:
        """Make every CPU that we may run on raise one event, from the calling thread."""
        self.silent = False
        allowed = os.sched_getaffinity(0)
        with open("/proc/thread-self/comm", "r+b", buffering=0) as name:
            mine = name.read(64).removesuffix(b"\n")
            try:
                for cpu in allowed:
                    with contextlib.suppress(OSError):
                        os.sched_setaffinity(0, {cpu})
                        name.write(mine)
            finally:
                os.sched_setaffinity(0, allowed)

    def _refused(self, number: int, sink: Sink) -> bool:
        if number == errno.ENOBUFS:
            self._overrun = True
            return True
        if number not in _QUIET:
            raise OSError(number, os.strerror(number))
        if number == errno.EAGAIN and self._overrun:
            self._report(0, sink)
        return number == errno.EINTR

    def _report(self, count: int, sink: Sink, cpu: int | None = None) -> None:
        """Report a loss: a new one, unless it is of the time before the last report and this CPU was silent since."""
        if self._overrun or cpu is None:
            self._overrun = False
            self._at_loss = dict(self._next)
            self.silent = True
            sink.lost(count, fresh=True)
        elif self._at_loss.pop(cpu, None) == self._next[cpu]:
            sink.lost(count, fresh=False)
        else:
            sink.lost(count, fresh=True)

    def _give(self, count: int, sink: Sink, *, genuine: bool) -> None:
        following = self._next
        for index, (size, group, sequence, kind, cpu, when, one, two, three, four, rest) in enumerate(
            EVENT.iter_unpack(self._view[: count * SLOT])
        ):
            if size < messages.DATAGRAM or group != messages.GROUP:
                continue
            if (not genuine and not self._from_kernel(index)) or cpu == messages.NO_CPU:
                continue
            expected = following.get(cpu)
            if sequence != expected and expected is not None:
                self._report((sequence - expected) & 0xFFFFFFFF, sink, cpu)
            following[cpu] = (sequence + 1) & 0xFFFFFFFF
            if kind == FORK:
                sink.fork(when, two, three, four)
            elif kind == EXIT:
                sink.exit(when, one, two)
            elif kind == EXEC:
                sink.exec(when, two)
            elif kind == UID and one == two:
                sink.uid(two, three)
            elif kind == COMM and one == two:
                sink.comm(two, struct.pack("=II", three, four) + rest)

    def _from_kernel(self, index: int) -> bool:
        start = index * len(_ADDRESS)
        return int.from_bytes(self._addresses.raw[start + 4 : start + 8], "little") == 0

    def _make_headers(self) -> ctypes.Array[_Mmsghdr]:
        slots = ctypes.addressof((ctypes.c_char * len(self._slots)).from_buffer(self._slots))
        names = ctypes.addressof(self._addresses)
        self._vectors = (_Iovec * BATCH)()
        headers = (_Mmsghdr * BATCH)()
        for index in range(BATCH):
            self._vectors[index].base = slots + index * SLOT
            self._vectors[index].len = SLOT
            header = headers[index]
            header.name = names + index * len(_ADDRESS)
            header.name_len = len(_ADDRESS)
            header.iov = ctypes.addressof(self._vectors[index])
            header.iov_len = 1
        return headers

    def _enlarge(self, size: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def _bound() -> socket.socket:
    try:
        door = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, messages.NETLINK_CONNECTOR)
    except OSError as error:
        raise ConnectorUnavailableError(
            f"cannot open the proc connector: {_words(error)}", hint="use a kernel with CONFIG_PROC_EVENTS"
        ) from error
    try:
        door.bind((0, messages.GROUP))
    except OSError as error:
        door.close()
        raise ConnectorUnavailableError(
            f"cannot listen to process events: {_words(error)}",
            hint="use Linux 6.6 or later, or give the daemon CAP_NET_ADMIN",
        ) from error
    return door


def _subscribe(door: socket.socket) -> None:
    """Ask for every event and wait for the kernel's word that it agreed. Namespaces that may not listen get no word."""
    token = secrets.randbits(31)
    try:
        door.send(messages.subscription(token))
    except OSError as error:
        raise ConnectorUnavailableError(
            f"cannot subscribe to process events: {_words(error)}",
            hint="run the daemon in the initial network namespace, on a kernel with CONFIG_PROC_EVENTS",
        ) from error
    until = time.monotonic() + _ANSWER_S
    while (left := until - time.monotonic()) > 0:
        door.settimeout(left)
        try:
            datagram, (sender, _groups) = door.recvfrom(messages.SLOT)
        except TimeoutError:
            break
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise ConnectorUnavailableError(f"cannot subscribe to process events: {_words(error)}") from error
            continue
        number = messages.acknowledged(datagram, token) if sender == 0 else None
        if number is not None:
            door.settimeout(0)
            _agreed(number)
            return
    raise ConnectorUnavailableError(
        "cannot subscribe to process events: the kernel does not answer",
        hint="run the daemon in the initial pid and user namespaces",
    )


def _agreed(number: int) -> None:
    if number:
        raise ConnectorUnavailableError(
            f"cannot subscribe to process events: {os.strerror(number).lower()}",
            hint="use Linux 6.6 or later, or give the daemon CAP_NET_ADMIN",
        )


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
