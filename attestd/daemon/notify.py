"""Telling the service manager what we are at: the protocol of sd_notify(3), without its library.

Rules
- What the manager passed is taken out of the environment: no child of ours may speak for us, nor adopt our sockets.
- A datagram that cannot be sent is not an error of ours: a manager that went takes us along, and without one nothing
  is sent at all.
- Times are CLOCK_MONOTONIC in microseconds, as the manager compares them.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping

STATUS_LETTERS = 200


def monotonic_us() -> int:
    """CLOCK_MONOTONIC, microseconds."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


class Notifier:
    """The line to the service manager; without one, every method does nothing."""

    def __init__(self, address: str = "", *, watchdog_us: int = 0, clock_us: Callable[[], int] = monotonic_us) -> None:
        """``address``: path of the manager's datagram socket, or ``@name`` in the abstract namespace; empty: none."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._clock_us = clock_us
        self.watchdog_s = watchdog_us / 1_000_000 if address else 0.0
        """How long the manager waits for a sign of life, seconds; 0: it does not wait for any."""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str], pid: int) -> Notifier:
        """What the manager told this process, taken out of ``environ``. A malformed time counts as none."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watched, asked = environ.pop("WATCHDOG_PID", ""), environ.pop("WATCHDOG_USEC", "")
        mine = watched in {"", str(pid)} and asked.isdecimal()
        usable = address.startswith(("/", "@")) and len(address) > 1
        return cls(address if usable else "", watchdog_us=int(asked) if mine else 0)

    @property
    def present(self) -> bool:
        """Whether a manager listens."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """Started, or reloaded."""
        self._send("READY=1", _status(status))

    def reloading(self) -> None:
        """A reload begins; ``ready`` ends it. The time tells the manager that this is the one it asked for."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._clock_us()}")

    def stopping(self) -> None:
        """The end begins."""
        self._send("STOPPING=1", _status("stopping: sessions are told, servers are ended"))

    def alive(self, status: str) -> None:
        """The self-check succeeded."""
        self._send("WATCHDOG=1", _status(status))

    def failed(self, status: str) -> None:
        """We must not go on: the manager does at once what it does when a sign of life is missing."""
        self._send("WATCHDOG=trigger", _status(status))

    def status(self, status: str) -> None:
        """What ``systemctl status`` shows."""
        self._send(_status(status))

    def store(self, name: str, sock: socket.socket) -> None:
        """Let the manager hold a listening socket: a restarted daemon is passed it, and its queue."""
        self._send("FDSTORE=1", f"FDNAME={name}", fds=(sock.fileno(),))

    def drop(self, name: str) -> None:
        """Let the manager forget a socket that was stored."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def _send(self, *lines: str, fds: tuple[int, ...] = ()) -> None:
        if not self._address:
            return
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.sendmsg(["\n".join(lines).encode()], rights, 0, os.fsencode(self._address))


def _status(text: str) -> str:
    """One line, printable: a message of an error may hold anything."""
    return "STATUS=" + "".join(c if c.isprintable() else " " for c in text[:STATUS_LETTERS])
