"""The chain on macOS: from the peer to launchd, race-free.

Rules: a process names its parent by pid; the parent's unique id must be the one that the child carries, else it is
not the parent that started it. A process that executed something carries the unique id of its parent *at that exec*,
so a child of launchd must also carry launchd's pid version, which is kept from its fork on: launchd adopts every
orphan, and nobody else adopts. After all links are read a last pass asks each for its ids and its parent once more;
else the walk is made anew, three times at most. A parent that did not start its child ends the chain as *broken*.

Where the parent's pid version is not the one of the fork, the parent has executed another program since: the image
that started the child is not the one that is shown. That is a gap of the child.
"""

from __future__ import annotations

import errno

import msgspec

from attestd.errors import Cause, EvidenceError
from attestd.kernel.darwin.access import Access
from attestd.kernel.darwin.files import FileReader
from attestd.kernel.darwin.libsystem import System
from attestd.kernel.darwin.reading import Observed, observe

MAX_LINKS = 32
_ATTEMPTS = 3
_LAUNCHD = 1
_REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.EPROTO})
OTHER_STARTER = "parent: executed another program since it started this one"


def walk(system: System, files: FileReader, pid: int) -> tuple[list[Observed], str]:
    """The process and its ancestors, and why the chain ends (``Evidence.end``).

    Raises:
        EvidenceError: PEER_GONE - the process itself has exited; INCONSISTENT; UNATTESTABLE - the kernel refuses.
    """
    for _ in range(_ATTEMPTS):
        access = Access(system.acl_allows)
        chain = [_first(system, files, pid, access)]
        end = _climb(system, files, chain, access)
        if end is not None and _holds(system, chain):
            return chain, end
    raise EvidenceError(
        Cause.INCONSISTENT,
        f"cannot attest process {pid}: its ancestors changed while they were read, {_ATTEMPTS} times",
    )


def _first(system: System, files: FileReader, pid: int, access: Access) -> Observed:
    try:
        return observe(system, files, pid, access)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise EvidenceError(
            Cause.UNATTESTABLE, f"cannot attest process {pid}: {(error.strerror or 'refused').lower()}"
        ) from error


def _climb(system: System, files: FileReader, chain: list[Observed], access: Access) -> str | None:
    """Append the ancestors; the end, or None if one exited meanwhile."""
    while (end := _natural_end(chain)) is None:
        child = chain[-1]
        try:
            parent = observe(system, files, child.link.ppid, access)
        except EvidenceError as error:
            if error.cause is Cause.PEER_GONE:
                return None
            raise
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            return "unreadable"
        if not started(child, parent):
            chain[-1] = _marked(child, reparented=True)
            return "broken"
        if child.unique.parent_version != parent.unique.version:
            chain[-1] = _marked(child, gap=OTHER_STARTER)
        chain.append(parent)
    return end


def _natural_end(chain: list[Observed]) -> str | None:
    link = chain[-1].link
    if link.pid == _LAUNCHD:
        return "init"
    if link.ppid == 0:
        return "unreadable"
    return "limit" if len(chain) == MAX_LINKS else None


def started(child: Observed, parent: Observed) -> bool:
    """Whether ``parent`` forked ``child``."""
    if child.unique.parent_unique_id != parent.unique.unique_id:
        return False
    return parent.link.pid != _LAUNCHD or child.unique.parent_version == parent.unique.version


def _marked(observed: Observed, *, reparented: bool = False, gap: str = "") -> Observed:
    gaps = (*observed.link.gaps, gap) if gap else observed.link.gaps
    return observed._replace(link=msgspec.structs.replace(observed.link, reparented=reparented, gaps=gaps))


def _holds(system: System, chain: list[Observed]) -> bool:
    """The last pass: every link is the image that was read, and still the child of the next one."""
    try:
        return all(
            system.unique(each.link.pid) == each.unique and system.short(each.link.pid).pbsi_ppid == each.link.ppid
            for each in chain
        )
    except ProcessLookupError:
        return False
