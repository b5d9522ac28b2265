"""One attempt to read one process, and whether it was consistent. See ``snapshot`` for the rules.

What may not be read is a gap with the system's words for the reason; ESRCH is never a gap, it ends the attempt.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec

from attestd.evidence import posture
from attestd.evidence.model import FileFacts, Link, Namespaces, Script
from attestd.evidence.protocol import AbsentRecorder
from attestd.evidence.recorder import Recorder
from attestd.kernel.linux import labels, mappings, scripts, virtualenv
from attestd.kernel.linux.access import Access
from attestd.kernel.linux.files import SOUND_FILE_SYSTEMS, YOUNG_NS, FileReader
from attestd.kernel.linux.labels import OwnNamespaces
from attestd.kernel.linux.origins import Origins
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.recorded import Recorded
from attestd.kernel.linux.status import Status, landmarks, parse_status

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_MAX_ARGUMENTS = 64
_MAX_ARGUMENT = 4096
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY

T = TypeVar("T")
ExeKey = tuple[int, int, int, int, int, int, int, int]


class Sources:
    """What every process is read with."""

    __slots__ = ("files", "origins", "ours", "recorder")

    def __init__(
        self, files: FileReader, origins: Origins, ours: OwnNamespaces, recorder: Recorder | None = None
    ) -> None:
        self.files = files
        self.recorder: Recorder = recorder or AbsentRecorder()
        self.origins = origins
        self.ours = ours


def exe_key(found: os.stat_result) -> ExeKey:
    """What must be equal for the executable's facts to hold."""
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_mode,
        found.st_uid,
        found.st_nlink,
    )


def writable(
    access: Access, path: str, found: os.stat_result, uids: tuple[int, int, int, int], gids: tuple[int, ...]
) -> bool:
    """Whether any identity of a process (real, effective, saved) may write the file or replace it."""
    if uids[0] == uids[1] == uids[2]:
        return access.writable(path, found, uids[0], gids)
    return any(access.writable(path, found, uid, gids) for uid in uids)


class Reading:
    """One attempt. ``stable``: the facts may be kept as long as ``Snapshot.current`` finds nothing changed."""

    def __init__(self, process: Process, sources: Sources, access: Access) -> None:
        self.process = process
        self._sources = sources
        self._access = access
        self._gaps: list[str] = []
        self.stable = True
        raw = process.status_bytes()
        self.landmarks = landmarks(raw)
        self.status: Status = parse_status(raw) if len(raw) < 4096 else process.status()
        self.gids = tuple(sorted({*self.status.gids[:3], *self.status.groups}))
        self._stat = process.stat()
        self.recorder = sources.recorder
        self.recorded = Recorded(sources.recorder, process.pid, process.start_ticks)
        argv = self.recorded.argv
        self._argv: tuple[str, ...] = argv if argv is not None else self._tried("cmdline", process.argv, ())
        self._forged = ""
        self._confirmed = False
        self.exe_key: ExeKey | None = None
        self.exe_text = ""
        self._exe: FileFacts | None = self._tried("exe", self._read_exe, None)
        self._script = self._read_script()

    def link(self) -> Link:
        """The link, with what is not needed to tell the image apart read now."""
        process, status = self.process, self.status
        namespaces = self._read_namespaces()
        cgroup = self._tried("cgroup", lambda: labels.cgroup(process.read("cgroup")), "")
        found_posture = self._read_posture()
        return Link(
            pid=process.pid,
            start_ticks=process.start_ticks,
            pidfs_ino=process.pidfs_ino,
            ppid=status.ppid,
            uids=status.uids,
            gids=status.gids,
            comm=status.comm,
            argv=tuple(word[:_MAX_ARGUMENT] for word in self._argv[:_MAX_ARGUMENTS]),
            exe=self._exe,
            origin=self._sources.origins.of_file(self._exe) if self._exe else None,
            script=self._script,
            namespaces=namespaces,
            tracer_pid=status.tracer_pid,
            tty=labels.terminal(self._stat.tty_nr),
            session=self._stat.session,
            cgroup=cgroup,
            posture=found_posture,
            gaps=tuple(self._gaps),
            recorded=self._confirmed and not self.recorded.objection(),
            forged=self._forged,
            unrecorded=self._unrecorded(),
            environ_cut=self.recorded.event is not None and not self.recorded.environ_whole,
        )

    def _unrecorded(self) -> str:
        """See ``Link.unrecorded``."""
        if self._sources.recorder.state()[0] != "on" or self._forged:
            return ""
        return self.recorded.objection() or ("" if self._confirmed else "the file system hides the device of its files")

    def consistent(self) -> bool:
        """Whether everything so far was read of one image that still runs. Raises ProcessLookupError."""
        process = self.process
        if not (process.exists() and process.same_image()) or process.stat().start_ticks != process.start_ticks:
            return False
        if self.exe_key is None:
            return True
        found = os.stat("exe", dir_fd=process.dirfd)
        return (found.st_dev, found.st_ino) == self.exe_key[:2]

    def _tried(self, what: str, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except ProcessLookupError:
            raise
        except OSError as error:
            self._gaps.append(f"{what}: {(error.strerror or 'unreadable').lower()}")
            return otherwise

    def _read_exe(self) -> FileFacts | None:
        self.exe_text = self.process.readlink("exe")
        fd = self.process.open_file("exe", _READ)
        try:
            uids = self.status.uids
            measured = self._sources.files.measure(
                fd, self.exe_text, uids[0], self.gids, held=True, access=self._access
            )
            found = os.fstat(fd)
            verdict = self.recorded.image_is(fd)
        finally:
            os.close(fd)
        self.exe_key = exe_key(found)
        self._confirmed = verdict is True
        self.stable = self.stable and measured.stable
        if self.process.pagemap_fd is None:
            self.stable = False
            self._gaps.append("pagemap: permission denied, another image would go unnoticed")
        facts = measured.facts
        if facts.sha256 is None:
            self._gaps.append("exe: content could not be read whole")
        if verdict is False:
            self._forged = facts.path
            self._gaps.append(f"exe: shows {facts.path}, which is not the file that was executed")
            return None
        if not facts.writable and writable(self._access, facts.path, found, uids, self.gids):
            return msgspec.structs.replace(facts, writable=True)
        return facts

    def _read_script(self) -> Script | None:
        if self._exe is None:
            return None
        script = scripts.resolve(
            self.process,
            self._sources.files,
            self._sources.origins,
            exe_path=self._exe.path,
            argv=self._argv,
            uid=self.status.uids[0],
            gids=self.gids,
            start=self.recorded.start,
        )
        file = script.file if script else None
        if file is not None:
            self.stable = self.stable and file.fs in SOUND_FILE_SYSTEMS and self._sources.files.age_ns(file) >= YOUNG_NS
        return script

    def _read_namespaces(self) -> Namespaces:
        ours = self._sources.ours
        user, pid, mnt = (self._namespace(kind) for kind in ("user", "pid", "mnt"))
        same_pid = pid == ours.pid if pid is not None else len(self.status.ns_pids) == 1
        return Namespaces(
            user=user,
            pid=pid,
            mnt=mnt,
            ours_user=None if user is None else user == ours.user,
            ours_pid=same_pid,
            ours_mnt=None if mnt is None else mnt == ours.mnt,
        )

    def _namespace(self, kind: str) -> int | None:
        return self._tried(f"ns/{kind}", lambda: labels.namespace_inode(self.process.readlink(f"ns/{kind}")), None)

    def _read_posture(self) -> tuple[str, ...]:
        family = self._script.interpreter if self._script else None
        found = {*posture.from_argv(family, self._argv)}
        own = self._own_paths()
        environment = self._environment() if family == "python" else None
        if environment is not None:
            own.append(f"{environment}/bin/python")
            if not any(path.startswith(f"{environment}/") for path in own[:-1]):
                found.update(posture.from_environment(environment))
        found.update(posture.from_environ(self.recorded.environ, family))
        if not self.recorded.environ_whole:
            environ: dict[str, str] = self._tried("environ", self.process.environ, {})
            found.update(posture.from_environ(environ, family))
        if self._exe is not None:
            files: dict[str, int] = self._tried("maps", lambda: mappings.executable_files(self.process), {})
            if len(files) == mappings.MAX_FILES:
                self._gaps.append(f"maps: only the first {mappings.MAX_FILES} files")
            files.pop(self.exe_text, None)
            judge = mappings.Judge(self._access, self.status.uids[0], self.gids, own)
            found.update(posture.from_mappings(judge.judged(files), self._exe.path))
        return tuple(sorted(found))

    def _environment(self) -> str | None:
        """The virtual environment, if the caller could change what is installed in it."""
        root = self._tried(
            "pyvenv.cfg", lambda: virtualenv.environment_of(self.process, self._argv, self.recorded.start), None
        )
        if root is None:
            return None
        try:
            found = os.stat(root)
        except OSError:
            return root
        return root if writable(self._access, root, found, self.status.uids, self.gids) else None

    def _own_paths(self) -> list[str]:
        paths = [self._exe.path] if self._exe else []
        if self._script and self._script.file:
            paths.append(self._script.file.path)
        return paths
