"""One link: everything that is read of one process, proved to belong to one image at one moment.

Rules: facts are read through the descriptors of a ``Process``; the executable is opened and hashed, never its path.
Afterwards the process must exist, its kept pagemap must not be at end of file (no exec, no exit), its start time and
its executable must be the same; else the handle is opened anew, three times at most, then the refusal is
INCONSISTENT. What may not be read becomes a gap of the link. A memfd, a deleted file, an unreadable executable are
facts, not errors.

A ``Snapshot`` keeps what was read. ``current`` answers whether all of it still holds, at the price of a few reads:
same image, same status lines (name, parent, tracer, ids, groups, session, size of executable memory), same user
namespace, same executable and script by stat, their paths still leading to them, and the same answer on who can write
them. If any differs everything is read anew. Digests of files on file systems where stat does not tell about changes
never hold. Not read again while the image is the same: argv, environment, control group, mount namespace, terminal.
"""

from __future__ import annotations

import os
import sys

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Link
from attestd.kernel.linux.access import Access
from attestd.kernel.linux.process import Process, gone
from attestd.kernel.linux.reading import Reading, Sources, exe_key, writable
from attestd.kernel.linux.recorded import key_of

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_ATTEMPTS = 3

Marked = dict[bool | None, tuple[Link, Link]]
"""By what the link is marked with (``Link.reparented``): the link as it was read, and the marked one."""


class Snapshot:
    """A link with the process it was read from; the snapshot is one user of that process."""

    __slots__ = (
        "_exe_key",
        "_gids",
        "_key",
        "_landmarks",
        "_recorder",
        "_stable",
        "_user_ns",
        "link",
        "marked",
        "process",
        "record",
    )

    def __init__(self, reading: Reading, link: Link) -> None:
        self.process = reading.process
        self.link = link
        self._key = key_of(reading.process.pid, reading.process.start_ticks)
        self._landmarks = reading.landmarks
        self._exe_key = reading.exe_key
        self._user_ns = None if link.namespaces.user is None else f"user:[{link.namespaces.user}]"
        self._gids = reading.gids
        self._stable = reading.stable
        self._recorder = reading.recorder
        self.record = reading.recorded.record
        self.marked: Marked = {}
        """The link as the chain marks it, made once: equal evidence is then the same objects (``appraisal.memo``)."""

    def current(self, access: Access) -> bool:
        """Whether the link would be read the same now. Raises EvidenceError(PEER_GONE)."""
        process = self.process
        if self._recorder.process(self._key) != self.record:
            return False
        try:
            return (
                self._stable
                and process.same_image()
                and self._same_status()
                and (self._user_ns is None or process.readlink("ns/user") == self._user_ns)
                and self._same_executable(access)
                and self._same_script(access)
            )
        except ProcessLookupError as error:
            raise gone(process.pid) from error
        except OSError:
            return False

    def _same_status(self) -> bool:
        raw = self.process.status_bytes()
        for part in self._landmarks:  # noqa: SIM110 - a generator costs more than the search
            if part not in raw:
                return False
        return True

    def _same_executable(self, access: Access) -> bool:
        exe = self.link.exe
        if exe is None:
            return True
        found = os.stat("exe", dir_fd=self.process.dirfd)
        return exe_key(found) == self._exe_key and (
            exe.deleted or writable(access, exe.path, found, self.link.uids, self._gids) == exe.writable
        )

    def _same_script(self, access: Access) -> bool:
        file = self.link.script.file if self.link.script else None
        if file is None:
            return True
        found = os.stat(file.path, follow_symlinks=False)  # of a canonical path: a symbolic link there is a change
        seen = (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns, found.st_mode)
        return seen == (file.dev, file.ino, file.size, file.ctime_ns, file.mode) and (
            access.writable(file.path, found, self.link.uids[0], self._gids, there=found) == file.writable
        )


def observe(process: Process, sources: Sources, access: Access) -> Snapshot:
    """Read one process. Takes over ``process``: it is closed on failure and replaced by a newer handle after an exec.

    Raises:
        EvidenceError: PEER_GONE; INCONSISTENT - it kept executing other programs while it was read.
        PermissionError: not even its status may be read.
    """
    for attempt in range(_ATTEMPTS):
        pid = process.pid
        try:
            if attempt:
                process = _reopened(process)
            reading = Reading(process, sources, access)
            link = reading.link()
            if reading.consistent():
                return Snapshot(reading, link)
            if process.exited():
                break
        except ProcessLookupError as error:
            process.close()
            raise gone(pid) from error
        except BaseException:
            process.close()
            raise
    ended = process.exited()
    process.close()
    if ended:
        raise gone(process.pid)
    raise EvidenceError(
        Cause.INCONSISTENT, f"cannot attest process {process.pid}: its facts changed while they were read, 3 times"
    )


def _reopened(process: Process) -> Process:
    """A handle on the image that the process runs now. Closes the old one if that succeeds."""
    newer = Process.open(process.pid, os.dup(process.pidfd))
    process.close()
    return newer
