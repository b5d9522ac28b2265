"""Step 4 of mediation: is it still the process that was attested? Asked on every message, so it costs microseconds.

Rules: nothing is opened here; everything is read from descriptors that were kept since the attestation and cannot
come to mean another process. For the peer and each link up to the accountable client: the kept pagemap is not at end
of file (same image, alive), and the parent is the one that was attested. For the peer and the accountable client: no
tracer, and for the peer the same uids. The status file prints PPid, TracerPid and Uid on lines that follow each
other, so one read and one comparison answers all three. A tracer can attach to a single thread without showing in the
main thread's status; the other threads of the peer and of the accountable client are looked at once, when the
accountable client becomes known, unless the process has one thread only (``Process.alone``). The peer's tracer is
looked at on every message; the accountable client's too, unless that was done within the last millisecond: a status
costs 7 µs, and who traces an ancestor for less than a millisecond could as well do it between two messages.
Where the pagemap of either may not be read, an exec could not be seen: such a watch never verifies. Where the kernel
recorder knew the peer and the accountable client, their exec counters must be those of the attestation as well; a
record that is gone (the recorder was unloaded) verifies no more. Counters that are not exact are not asked for: an
equal one would prove nothing. A dead link can be accountable for a level 0 only: never verifies.

A relay that has stepped aside (docs/adr/0017) has none of the client's bytes in its hands: nothing that happens to it
can change a message. Then every message asks whether the image of the accountable client is there and its exec counter
the same; all the rest is asked every 10 ms while messages pass, and by every look without a message.
"""

from __future__ import annotations

import os
import sys
from time import monotonic_ns

from attestd.errors import Cause
from attestd.evidence.model import Link
from attestd.evidence.protocol import AbsentRecorder
from attestd.evidence.recorder import ProcessKey, Recorder
from attestd.kernel.linux.process import UNTRACED, Process
from attestd.kernel.linux.status import parse_status
from attestd.kernel.linux.table import Observed

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

TRACER_FRESH_NS = 1_000_000
WHOLE_LOOK_NS = 10_000_000
_STATUS_HEAD_BYTES = 400  # name (escaped, at most 64), umask, state, ids, parent and tracer come first


class LinuxWatch:
    """Implements ``attestd.evidence.protocol.Watch``. Takes over the handles of ``chain``; peer first.

    Until ``pin_accountable`` is called, the peer counts as accountable.
    """

    def __init__(self, chain: list[Observed], recorder: Recorder | None = None) -> None:
        peer = chain[0].process
        if peer is None:
            raise ValueError("cannot watch a chain whose peer is dead")
        self._peer = peer
        self._processes: list[Process | None] = [observed.process for observed in chain]
        self._links: list[Link] = [observed.link for observed in chain]
        self._recorder = recorder or AbsentRecorder()
        self._records = [observed.record for observed in chain]
        self._counters: tuple[tuple[ProcessKey, int], ...] = ()
        self._peer_pid = self._links[0].pid
        self._accountable = 0
        self._lasting: Cause | None = None
        self._pagemaps: tuple[tuple[int, int], ...] = ()
        self._peer_status = (-1, b"")
        self._looked_ns = 0
        self._aside = False
        self._whole_ns = 0
        self._arrange()

    def verify(self, writer_pid: int) -> Cause | None:
        """See the protocol. After ``close``, and once a thread was found traced, never None."""
        if writer_pid and writer_pid != self._peer_pid:
            return Cause.WRITER_MISMATCH
        if self._lasting is not None:
            return self._lasting
        if self._aside and writer_pid:
            now = monotonic_ns()
            if now - self._whole_ns < WHOLE_LOOK_NS:
                return self._client_changed()
            cause = self._anything_changed()
            if cause is None:
                self._whole_ns = now
            return cause
        return self._anything_changed()

    def _client_changed(self) -> Cause | None:
        index, fd = self._pagemaps[-1]
        try:
            if len(os.pread(fd, 8, 0)) != 8:
                return self._image_gone(index)
        except ProcessLookupError:
            return Cause.PEER_GONE
        return self._executed()

    def _executed(self) -> Cause | None:
        for key, counter in self._counters:
            if (now := self._recorder.exec_counter(key)) != counter:
                return Cause.UNATTESTABLE if now is None else Cause.IMAGE_CHANGED
        return None

    def _anything_changed(self) -> Cause | None:
        try:
            for index, fd in self._pagemaps:
                if len(os.pread(fd, 8, 0)) != 8:
                    return self._image_gone(index)
            fd, expected = self._peer_status
            if expected not in os.pread(fd, _STATUS_HEAD_BYTES, 0):
                return _status_changed(self._peer, self._links[0])
            cause = self._executed() if self._counters else None
            if cause is None and self._accountable:
                cause = self._ancestors_changed()
        except ProcessLookupError:
            return Cause.PEER_GONE
        return cause

    def leave_connection(self) -> None:
        """See the protocol: nothing of the connection is kept here."""

    def set_aside(self) -> None:
        """See the protocol."""
        self._aside = self._accountable > 0

    def _ancestors_changed(self) -> Cause | None:
        for index in range(1, self._accountable):
            process = self._processes[index]
            if process is not None and process.ppid() != self._links[index].ppid:
                return Cause.CHAIN_CHANGED
        now = monotonic_ns()
        if now - self._looked_ns >= TRACER_FRESH_NS:
            client = self._processes[self._accountable]
            if client is None:
                return Cause.UNATTESTABLE
            if UNTRACED not in client.status_bytes():
                return _status_changed(client, self._links[self._accountable])
            self._looked_ns = now
        return None

    def exit_fds(self) -> tuple[int, ...]:
        """Descriptors (pidfds) of the peer and the accountable client, one of each process; empty after ``close``."""
        if not self._processes:
            return ()
        held = (self._peer, self._processes[self._accountable])
        return tuple(dict.fromkeys(process.pidfd for process in held if process is not None))

    def pin_accountable(self, index: int) -> None:
        """See the protocol. Raises IndexError for a link that is not there or was released."""
        if not 0 <= index < len(self._processes):
            raise IndexError(f"cannot pin link {index}: the watch holds {len(self._processes)} links")
        for process in self._processes[index + 1 :]:
            if process is not None:
                process.close()
        del self._processes[index + 1 :], self._links[index + 1 :], self._records[index + 1 :]
        self._accountable = index
        self._arrange()
        held = {self._peer, self._processes[index]}
        if any(_threads_traced(process) for process in held if process is not None):
            self._lasting = Cause.TRACED

    def close(self) -> None:
        """Release every descriptor. Idempotent."""
        for process in self._processes:
            if process is not None:
                process.close()
        self._processes.clear()
        self._counters = ()
        self._pagemaps = ()
        self._lasting = Cause.PEER_GONE

    def _arrange(self) -> None:
        """Lay out what ``verify`` reads, so that it only loops."""
        last = self._accountable
        held = self._processes[: last + 1]
        self._pagemaps = tuple(
            (i, p.pagemap_fd) for i, p in enumerate(held) if p is not None and p.pagemap_fd is not None
        )
        parent = b"\nPPid:\t%d" % self._links[0].ppid if last else b""  # whose child the accountable is does not matter
        self._peer_status = (self._peer.status_fd, parent + UNTRACED + b"Uid:\t%d\t%d\t%d\t%d\n" % self._links[0].uids)
        self._looked_ns = 0
        watched = {0: self._records[0], last: self._records[last]}.values()
        self._counters = tuple((r.key, r.exec_counter) for r in watched if r is not None and r.counter_exact)
        client = held[last]
        if self._peer.pagemap_fd is None or client is None or client.pagemap_fd is None:
            self._lasting = Cause.UNATTESTABLE

    def _image_gone(self, index: int) -> Cause:
        """A process on its way out has lost its memory before its pidfd says so; after an exec it has a new one."""
        process = self._processes[index]
        has_memory = process is not None and b"\nVmPeak:" in process.status_bytes()
        return Cause.IMAGE_CHANGED if has_memory else Cause.PEER_GONE


def _status_changed(process: Process, link: Link) -> Cause:
    status = parse_status(process.status_bytes())
    if status.zombie:
        return Cause.PEER_GONE
    if status.tracer_pid:
        return Cause.TRACED
    return Cause.CHAIN_CHANGED if status.uids == link.uids else Cause.INCONSISTENT


def _threads_traced(process: Process) -> bool:
    try:
        if process.alone():
            return False  # the only thread is the one that every message asks about
        return bool(process.thread_tracers())
    except OSError:
        return False
