"""The chain: from the peer to pid 1, race-free.

Rules: a parent is opened by the pid that its child names and might already be someone else; so after all links are
read, a last pass asks every process once more for its parent and looks that each is still the image that was read.
Only if all of that holds is the chain true, for then every parent was alive and a parent at that moment; else the
walk is made anew, three times at most, then the refusal is INCONSISTENT. A parent that did not start its child ends
the chain as *broken* and is not shown as a link, for it is not part of the caller's history.

With the kernel recorder the parent is the one that called fork: where that is the process that ``ppid`` names, adoption
is ruled out; where it is another, the chain goes on with that one, as a dead link (``ancestors``) if it has exited. It
breaks only where the record ends: at a parent that is no longer remembered, or at a dead one older than the recorder.
Process events (the fallback) name dead parents too, but a living one only as the parent that the process was given: a
maker that asked for CLONE_PARENT is not named, so a living parent is looked at for signs of adoption as without them.
"""

from __future__ import annotations

import sys

import msgspec

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Link
from attestd.evidence.recorder import ProcessKey
from attestd.kernel.linux import ancestors
from attestd.kernel.linux.access import Access
from attestd.kernel.linux.adoption import adopted
from attestd.kernel.linux.recorded import same_process
from attestd.kernel.linux.table import Observed, ProcessTable

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

MAX_LINKS = 32
_ATTEMPTS = 3
_INIT = 1


def walk(table: ProcessTable, pid: int, pidfd: int | None = None) -> tuple[list[Observed], str]:
    """Observe ``pid`` and its ancestors.

    Returns:
        The links from the process outwards, with handles owned by the caller, and why the chain ends
        (``Evidence.end``).

    Raises:
        EvidenceError: PEER_GONE - the process itself has exited; INCONSISTENT.
    """
    for _ in range(_ATTEMPTS):
        chain: list[Observed] = []
        try:
            end = _climb(table, pid, pidfd, chain)
            if end is not None and _holds(chain):
                return chain, end
        except BaseException:
            release(chain)
            raise
        release(chain)
    raise EvidenceError(
        Cause.INCONSISTENT,
        f"cannot attest process {pid}: its ancestors changed while they were read, {_ATTEMPTS} times",
    )


def release(chain: list[Observed]) -> None:
    """Give up the handles of a chain."""
    for observed in chain:
        if observed.process is not None:
            observed.process.close()
    chain.clear()


def _climb(table: ProcessTable, pid: int, pidfd: int | None, chain: list[Observed]) -> str | None:
    """Append the links to ``chain``; the end, or None if an ancestor exited meanwhile."""
    access = Access()
    try:
        chain.append(table.observe(pid, access, pidfd))
    except PermissionError as error:
        raise EvidenceError(
            Cause.UNATTESTABLE,
            f"cannot attest process {pid}: it is hidden from this daemon",
            hint="mount /proc without hidepid, or run the daemon with CAP_SYS_PTRACE",
        ) from error
    while True:
        link = chain[-1].link
        if (end := _natural_end(link, len(chain))) is not None:
            return end
        mother = _recorded_parent(chain[-1])
        try:
            parent = _next(table, chain[-1], mother, access)
        except PermissionError:
            return "unreadable"
        except EvidenceError as error:
            if error.cause is Cause.PEER_GONE:
                return None
            raise
        if parent is None:
            _mark(chain[-1], reparented=True)
            return "broken"
        sign = _adopted(chain[-1], mother, parent)
        _mark(chain[-1], reparented=sign)
        if sign:
            release([parent])
            return "broken"
        chain.append(parent)


def _adopted(child: Observed, mother: ProcessKey | None, parent: Observed) -> bool | None:
    """Whether ``parent`` did not start ``child``. Who called fork is known from the kernel recorder only."""
    record = child.record if mother is not None else None
    if record is not None and (record.parent_exact or parent.link.dead):
        return False
    return adopted(child.link, parent.link)


def _mark(observed: Observed, *, reparented: bool | None) -> None:
    """Every observation of one snapshot that is marked alike gets the same object, so that it is known again."""
    link = observed.link
    if link.reparented is reparented:
        return
    marked = observed.marked.get(reparented)
    if marked is None or marked[0] is not link:
        marked = observed.marked[reparented] = (link, msgspec.structs.replace(link, reparented=reparented))
    observed.link = marked[1]


def _recorded_parent(child: Observed) -> ProcessKey | None:
    """Who called fork, exactly. None: not recorded, so what /proc says is all there is."""
    record = child.record
    if record is None or record.pre_attach or record.gap:
        return None
    return record.parent


def _next(table: ProcessTable, child: Observed, mother: ProcessKey | None, access: Access) -> Observed | None:
    """The next link; None: a dead link's parent is not known. Raises as ``ProcessTable.observe``."""
    if mother is None:
        return None if child.process is None else table.observe(child.link.ppid, access)
    living = _living(table, mother, access)
    return living if living is not None else ancestors.dead(table.sources, mother, access)


def _living(table: ProcessTable, key: ProcessKey, access: Access) -> Observed | None:
    """The link of a recorded process if it is alive."""
    try:
        found = table.observe(key.pid, access)
    except EvidenceError as error:
        if error.cause is Cause.PEER_GONE:
            return None
        raise
    if same_process(key, found.link.pid, found.link.start_ticks):
        return found
    release([found])
    return None


def _natural_end(link: Link, length: int) -> str | None:
    if link.pid == _INIT:
        return "init"
    if link.ppid == 0 and not link.dead:
        return "namespace"
    return "limit" if length == MAX_LINKS else None


def _holds(chain: list[Observed]) -> bool:
    """The last pass: every link unchanged and still the child of the next one."""
    try:
        for observed in chain:
            process = observed.process
            if process is None:
                continue
            if process.ppid() != observed.link.ppid or not process.same_image():
                return False
    except ProcessLookupError:
        return False
    return True
