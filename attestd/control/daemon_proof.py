"""Finding the control socket, and proving that attestd answers there before a byte is sent to it.

Steps; each failure is an UnreachableError, and no other socket is tried after one that failed: 1. The path:
``--socket``, else the first that exists of the user's and the system's. 2. Its hands: the socket is a socket, owned
by us or root (the system path: by whom owns its directory); nobody else can
   write the directory, nor replace anything above it.
3. The kernel's word on who listens: that uid is the owner of the socket; at the system's path also root, whose service
   manager listens there until the service does. 4. Where the owner is ourselves, any program
of ours could have made the socket, so the listener must be ours too: the same
   interpreter file as this program, running the ``attestd`` script that lies beside our own ``attestctl``.
   Not for the system path: only root can have made its directory.

On macOS the kernel names who used the other end last, so it is asked again after step 4.

What step 4 cannot see: the command line is the listener's own words, so a hostile program of the same user that
copies it and the interpreter passes. User mode does not protect against that (``usermode.NOT_PROTECTED``).
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from attestd.control.listening import listener_of, program_of, runs_attestd
from attestd.control.places import system_runtime, user_runtime
from attestd.errors import UnreachableError

SYSTEM_SOCKET: Final = Path(system_runtime(), "control.sock")
_START: Final = "start it with: attestd run --user"
_OTHERS_WRITE: Final = 0o022


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the daemon should be."""

    path: Path
    system: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Us:
    """This program, as step 4 needs it. Injected, so that tests can be somebody."""

    uid: int
    interpreter: Path
    scripts: tuple[Path, ...]
    """Directories in which our own console scripts lie."""

    @classmethod
    def here(cls) -> Us:
        """Return the running process."""
        ours = Path(sys.argv[0])
        beside = (ours.resolve().parent, ours.absolute().parent, Path(sys.executable).parent)
        # A framework's Python starts another program than it says.
        interpreter = Path(program_of(os.getpid())[0] if sys.platform == "darwin" else sys.executable)
        return cls(uid=os.geteuid(), interpreter=interpreter, scripts=tuple(dict.fromkeys(beside)))


def candidates(uid: int, environ: Mapping[str, str]) -> tuple[Place, ...]:
    """Return the places to look, in order."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    user = Path(runtime) if runtime.startswith("/") else Path(user_runtime(uid))
    return (
        Place(path=user / "attestd" / "control.sock", system=False),
        Place(path=SYSTEM_SOCKET, system=True),
    )


def find(explicit: Path | None, uid: int, environ: Mapping[str, str]) -> Place:
    """Step 1. Raises UnreachableError."""
    if explicit is not None:
        path = explicit.absolute()
        return Place(path=path, system=path == SYSTEM_SOCKET)
    places = candidates(uid, environ)
    for place in places:
        if os.path.lexists(place.path):
            return place
    looked = " or ".join(str(place.path) for place in places)
    raise UnreachableError(f"cannot find attestd: there is no socket at {looked}", hint=_START)


def owner(place: Place, us: Us) -> int:
    """Step 2: return the uid that must be listening: the socket's owner, or the service's. Raises UnreachableError."""
    try:
        found = place.path.lstat()
    except OSError as error:
        raise UnreachableError(f"cannot reach attestd at {place.path}: {error.strerror}", hint=_START) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise UnreachableError(f"cannot trust {place.path}: got something that is not a socket", hint=_START)
    directory = place.path.parent.resolve()
    service = directory.stat().st_uid if place.system else 0
    allowed = {us.uid, 0, service}
    if found.st_uid not in allowed:
        raise UnreachableError(
            f"cannot trust {place.path}: got a socket of uid {found.st_uid}, expected uid {us.uid} or 0",
            hint="another user put it there; name the right one with --socket",
        )
    _require_safe(directory, service or found.st_uid)
    return service or found.st_uid


def _require_safe(directory: Path, uid: int) -> None:
    """Nobody but ``uid`` and root can put another file in the place of ``directory`` or of what is in it."""
    for depth, path in enumerate((directory, *directory.parents)):
        found = path.stat()
        sticky = depth > 0 and found.st_mode & stat.S_ISVTX
        if found.st_uid not in (uid, 0) or (found.st_mode & _OTHERS_WRITE and not sticky):
            raise UnreachableError(
                f"cannot trust the socket in {directory}: {path} has owner {found.st_uid} and mode "
                f"{stat.S_IMODE(found.st_mode):o}, expected that only uid {uid} and root can write it",
                hint=f"chmod go-w {path}, then start attestd again",
            )


def prove_listener(sock: socket.socket, place: Place, owner_uid: int, us: Us) -> int:
    """Steps 3 and 4 on a connected socket; return the listener's pid. Raises UnreachableError."""
    try:
        listener = uid, pid, _ = listener_of(sock)
        if uid != owner_uid and not (place.system and uid == 0):
            raise UnreachableError(
                f"cannot trust {place.path}: got a listener of uid {uid}, expected the socket's owner, uid {owner_uid}"
            )
        if owner_uid == us.uid and not place.system:
            _require_attestd(pid, place, us)
            if listener_of(sock) != listener:
                raise UnreachableError(f"cannot trust {place.path}: it is not pid {pid} any more that uses it")
    except OSError as error:
        raise UnreachableError(f"cannot prove who listens at {place.path}: {error.strerror}", hint=_START) from error
    return pid


def _require_attestd(pid: int, place: Place, us: Us) -> None:
    try:
        found = runs_attestd(pid, map(str, us.scripts), str(us.interpreter))
    except OSError as error:
        raise UnreachableError(
            f"cannot look at pid {pid}, which listens at {place.path}: {error.strerror}",
            hint="it has ended or is not yours; " + _START,
        ) from error
    if not found:
        raise UnreachableError(
            f"cannot trust {place.path}: pid {pid} listens there, and it is not the attestd of this installation",
            hint="use the attestctl that was installed with the running attestd, or stop that process",
        )
