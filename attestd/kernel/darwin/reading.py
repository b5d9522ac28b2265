"""One link on macOS: everything that is read of one process, proved to belong to one image at one moment.

Rules: the unique id names the process for ever and the pid version its image; both are read before and after
everything else, and if they differ all is read anew, three times at most. Questions about the signature carry the pid
version. Start time, terminal, directories and words may be read of processes of the same user only, unless we are
root: elsewhere they are gaps. A traced process has its tracer for a parent, so that is who is named.

macOS has no namespaces. A root directory other than the system's is shown as a foreign mount namespace; where it may
not be read nothing is claimed, for only root can change it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from attestd.errors import Cause, EvidenceError
from attestd.evidence import posture
from attestd.evidence.model import CodeSignature, FileFacts, Link, Namespaces
from attestd.kernel.darwin import abi, scripts, signature
from attestd.kernel.darwin.access import Access
from attestd.kernel.darwin.files import FileReader
from attestd.kernel.darwin.libsystem import System, Unique
from attestd.kernel.darwin.procargs import Words, parse_procargs

_ATTEMPTS = 3
_MAX_ARGUMENTS = 64
_MAX_ARGUMENT = 4096

T = TypeVar("T")


class Observed(NamedTuple):
    """A link and what names its image."""

    link: Link
    unique: Unique


def gone(pid: int) -> EvidenceError:
    """The refusal for a process that no longer exists."""
    return EvidenceError(Cause.PEER_GONE, f"cannot attest process {pid}: it has exited")


def observe(system: System, files: FileReader, pid: int, access: Access) -> Observed:
    """Read one process.

    Raises:
        EvidenceError: PEER_GONE; INCONSISTENT - it kept executing other programs while it was read.
    """
    try:
        before = system.unique(pid)
        for _ in range(_ATTEMPTS):
            link = _Reading(system, files, pid, before, access).link()
            after = system.unique(pid)
            if link is not None and after == before:
                return Observed(link, before)
            if after.unique_id != before.unique_id:
                raise gone(pid)
            before = after
    except ProcessLookupError as error:
        raise gone(pid) from error
    raise EvidenceError(
        Cause.INCONSISTENT, f"cannot attest process {pid}: its facts changed while they were read, {_ATTEMPTS} times"
    )


class _Reading:
    """One attempt."""

    def __init__(self, system: System, files: FileReader, pid: int, unique: Unique, access: Access) -> None:
        self._system, self._files, self._access = system, files, access
        self._pid, self._unique = pid, unique
        self._gaps: list[str] = []

    def link(self) -> Link | None:
        """The link; None: another image was executed meanwhile. Raises ProcessLookupError."""
        short = self._system.short(self._pid)
        if short.pbsi_status == abi.SZOMB or short.pbsi_flags & abi.PROC_FLAG_INEXIT:
            raise gone(self._pid)
        try:
            signed = self._tried("signature", self._read_signature, None)
        except ProcessLookupError:
            return None
        uids = (short.pbsi_ruid, short.pbsi_uid, short.pbsi_svuid, short.pbsi_uid)
        full = self._tried("start", lambda: self._system.full(self._pid), None)
        path = self._tried("exe", lambda: self._system.path(self._pid), "")
        exe = self._executable(path, signed, frozenset(uids))
        cwd, root = self._tried("cwd", lambda: self._system.directories(self._pid), ("", ""))
        whole_view = root in ("", "/")
        words = self._words()
        started = full.pbi_start_tvsec * 1_000_000 + full.pbi_start_tvusec if full is not None else 0
        place = scripts.Place(
            exe_path=path,
            cwd=cwd if whole_view else "",
            started_us=started,
            at_terminal=full is not None and self._at_terminal(full.e_tdev),
            uids=frozenset(uids),
        )
        script = scripts.resolve(self._files, self._access, place, words.argv) if exe is not None else None
        return Link(
            pid=self._pid,
            start_ticks=started,
            pidfs_ino=self._unique.unique_id,
            ppid=short.pbsi_ppid,
            uids=uids,
            gids=(short.pbsi_rgid, short.pbsi_gid, short.pbsi_svgid, short.pbsi_gid),
            comm=short.pbsi_comm.decode("utf-8", "replace"),
            argv=tuple(word[:_MAX_ARGUMENT] for word in words.argv[:_MAX_ARGUMENTS]),
            exe=exe,
            origin=signature.origin(signed) if signed is not None and exe is not None else None,
            script=script,
            namespaces=Namespaces(user=None, pid=None, mnt=None, ours_user=True, ours_pid=True, ours_mnt=whole_view),
            tracer_pid=(short.pbsi_ppid or 1) if short.pbsi_flags & abi.PROC_FLAG_TRACED else 0,
            tty=self._terminal(full),
            session=self._system.session(self._pid),
            cgroup="",
            posture=self._posture(script.interpreter if script is not None else None, words),
            gaps=tuple(self._gaps),
            signature=signed,
        )

    def _tried(self, what: str, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except ProcessLookupError:
            raise
        except OSError as error:
            self._gaps.append(f"{what}: {(error.strerror or 'unreadable').lower()}")
            return otherwise

    def _read_signature(self) -> CodeSignature:
        return signature.read_signature(self._system, self._pid, self._unique.version)

    def _executable(self, path: str, signed: CodeSignature | None, uids: frozenset[int]) -> FileFacts | None:
        if not path:
            return None
        cdhash = signed.cdhash if signed is not None else ""
        facts = self._tried("exe", lambda: self._files.executable(path, cdhash, uids, self._access), None)
        if facts is not None and facts.sha256 is None:
            reason = "the file is not the image that runs" if cdhash else "unsigned, nothing ties the file to the image"
            self._gaps.append(f"exe: {reason}")
        return facts

    def _words(self) -> Words:
        raw = self._tried("argv", lambda: self._system.arguments(self._pid), None)
        if raw is None:
            return Words((), ())
        try:
            return parse_procargs(raw)
        except ValueError as error:
            self._gaps.append(f"argv: {error}")
            return Words((), ())

    def _at_terminal(self, device: int) -> bool:
        try:
            found = self._system.vnode_stat(self._pid, 0)
        except OSError:
            return False
        return stat.S_ISCHR(found.vst_mode) and found.vst_rdev == device

    def _terminal(self, full: abi.BsdInfo | None) -> str | None:
        if full is None or not full.pbi_flags & abi.PROC_FLAG_CONTROLT:
            return None
        return self._system.terminal(full.e_tdev)

    def _posture(self, family: str | None, words: Words) -> tuple[str, ...]:
        found = {*posture.from_argv(family, words.argv), *posture.from_environ(words.environ, family)}
        return tuple(sorted(found))
