"""Dead ancestors: links of processes that have exited, known from the kernel recorder only.

Rules: the executable is opened by its recorded name and counts only if device, inode and, where known, generation are
still those that were executed; else the link has no executable. It counts as writable, for the groups of the dead are
not recorded. A script is resolved from the recorded words in the file system as the daemon sees it, for the process's
own view has gone with it, and counts only if the file is older than the process. Everything else is unknown and stands
in the gaps.
"""

from __future__ import annotations

import os
import sys

import msgspec

from attestd.errors import EvidenceError
from attestd.evidence.interpreters import family, parse_argv
from attestd.evidence.model import FileFacts, Link, Namespaces, Script
from attestd.evidence.posture import from_argv, from_environ
from attestd.evidence.recorder import ProcessKey
from attestd.kernel.linux import scripts
from attestd.kernel.linux.access import Access
from attestd.kernel.linux.reading import Sources
from attestd.kernel.linux.recorded import TICK_NS, Recorded
from attestd.kernel.linux.scripts import MAX_TEXT_CHARACTERS
from attestd.kernel.linux.table import Observed
from attestd.kernel.linux.view import label

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_GAPS = ("cgroup", "gids", "namespaces", "session", "tty")
_UNKNOWN_NAMESPACES = Namespaces(user=None, pid=None, mnt=None, ours_user=None, ours_pid=None, ours_mnt=None)
_NO_ONE = -1
_PLAIN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW
_O_PATH = 0o10000000


class _Gone(msgspec.Struct, kw_only=True):
    """Stands for a process that has exited, when a script is resolved."""

    dirfd: int
    start_ticks: int


def dead(sources: Sources, key: ProcessKey, access: Access) -> Observed | None:
    """The link of a process that has exited; None if the recorder does not remember it."""
    start_ticks = key.start_ns // TICK_NS
    found = Recorded(sources.recorder, key.pid, start_ticks)
    record = found.record
    if record is None or record.key != key:
        return None
    gaps = [f"{name}: the process has exited" for name in _GAPS]
    exe = _executable(sources, found, record.uid, access)
    if exe is None:
        gaps.append("exe: the file that was executed is not at its recorded name any more")
    argv = found.argv or ()
    if not argv:
        gaps.append("cmdline: the words of its exec are not remembered")
    script = _script(sources, found, exe, record.uid) if exe is not None else None
    interpreter = script.interpreter if script is not None else None
    link = Link(
        pid=key.pid,
        start_ticks=start_ticks,
        pidfs_ino=None,
        ppid=record.parent.pid if record.parent is not None else 0,
        uids=(record.uid,) * 4,
        gids=(_NO_ONE,) * 4,
        comm=record.comm,
        argv=tuple(word[:MAX_TEXT_CHARACTERS] for word in argv[:64]),
        exe=exe,
        origin=sources.origins.of_file(exe) if exe is not None else None,
        script=script,
        namespaces=_UNKNOWN_NAMESPACES,
        tracer_pid=0,
        tty=None,
        session=_NO_ONE,
        cgroup="",
        posture=tuple(sorted({*from_argv(interpreter, argv), *from_environ(found.environ, interpreter)})),
        gaps=tuple(gaps),
        recorded=exe is not None and not found.objection(),
        dead=True,
        unrecorded=found.objection(),
        environ_cut=not found.environ_whole,
    )
    return Observed(link, None, record)


def _executable(sources: Sources, found: Recorded, uid: int, access: Access) -> FileFacts | None:
    name = found.event.filename if found.event is not None else ""
    if not name.startswith("/"):
        return None
    try:
        handle = os.open(name, _O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        where = label(handle)
        fd = os.open(where, _PLAIN)  # not through the handle: a device or a pipe must not be opened for reading
    except OSError:
        return None
    finally:
        os.close(handle)
    try:
        if found.image_is(fd) is not True:
            return None
        facts = sources.files.measure(fd, where, uid, (), access=access).facts
    except (OSError, EvidenceError):
        return None
    finally:
        os.close(fd)
    return None if facts.sha256 is None else msgspec.structs.replace(facts, writable=True)


def _script(sources: Sources, found: Recorded, exe: FileFacts, uid: int) -> Script | None:
    interpreter = family(exe.path)
    if interpreter is None:
        return None
    argv, start = found.argv, found.start
    if argv is None or start is None or found.record is None:
        return Script(kind="unresolved", interpreter=interpreter)
    if parse_argv(interpreter, argv, exe.path).kind in ("none", "stdin"):
        return Script(kind="stdin", interpreter=interpreter)
    dirfd = os.open("/proc/self", _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        script = scripts.resolve(
            _Gone(dirfd=dirfd, start_ticks=found.record.key.start_ns // TICK_NS),
            sources.files,
            sources.origins,
            exe_path=exe.path,
            argv=argv,
            uid=uid,
            gids=(),
            start=msgspec.structs.replace(start, dead=True),
        )
    finally:
        os.close(dirfd)
    if script is None or script.file is None:
        return script
    if script.younger_than_process:
        return Script(kind="unresolved", interpreter=interpreter, name=script.name)
    return msgspec.structs.replace(script, file=msgspec.structs.replace(script.file, writable=True))
