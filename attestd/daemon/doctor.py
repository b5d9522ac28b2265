"""The checks of ``attestctl doctor``: what the kernel offers, what is weak here, and how to mend it.

ok: as it should be. warn: works, with less assurance; the detail says what is lost. fail: something must be done.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from attestd.control.replies import Check
from attestd.daemon.app import Daemon, Front
from attestd.daemon.config import ServerSettings
from attestd.daemon.registry import visible
from attestd.daemon.seals import UNDO
from attestd.daemon.secret_files import read_secret
from attestd.errors import ConfigurationError
from attestd.evidence.protocol import Feature

FIXED_SQLITE = (3, 51, 3)
"""From here on two writers in WAL mode are safe; before, exactly one connection may write, which is what attestd
has."""
ESSENTIAL = frozenset({"pidfd", "peer_token", "unique_ids"})
WITHOUT = {
    "fallback": "images, command lines and environments are claims of the process: at most level 1 where it can forge "
    "them; clients are challenged",
    "absent": "as with process events, and launchers that have exited are not known",
}
"""What is lost without the kernel recorder, by what there is instead."""
NEVER = "what a process executed before it was seen is not known; clients that come through the shim are challenged"
"""What is lost where no recorder can be loaded, on macOS."""
YEAR_2020 = 1_577_836_800


def checks(daemon: Daemon, features: Iterable[Feature], sees: int | None = None) -> tuple[Check, ...]:
    """Every check, in a fixed order; ``features`` as ``Kernel.examine`` found them.

    ``sees``: the uid that is told only of what is everybody's or its own; None: everything.
    """
    fronts = [(name, front) for name, front in sorted(daemon.fronts.items()) if visible(front.owner, sees)]
    found = (*_kernel(daemon, features), *_sockets(daemon, fronts), *_port(daemon), *_files(daemon, sees))
    return (*found, *_servers(fronts, sees), *_seals(daemon), *_rest(daemon, sees))


def _kernel(daemon: Daemon, features: Iterable[Feature]) -> Iterator[Check]:
    state, reason = daemon.recorder.state()
    loadable = False
    for feature in features:
        loadable |= feature.group == "recorder"
        needed = state != "on" or feature.group != "recorder"
        weak = "fail" if feature.name in ESSENTIAL else "warn"
        lacking = needed and not feature.present
        spare = "" if needed or feature.present else "; not needed, the recorder is on"
        yield Check(
            name=f"{feature.group} {feature.name}",
            status=weak if lacking else "ok",
            detail=feature.detail + spare,
            remedy=feature.remedy if lacking else "",
            cost=feature.cost if lacking else "",
        )
    yield Check(
        name="recorder",
        status="ok" if state == "on" else "warn",
        detail=f"{state}: {reason}",
        remedy=("" if state == "on" else "sudo attestd-recorder load")
        if loadable
        else "none; docs/macos.md says what follows",
        cost=WITHOUT.get(state, "") if loadable else NEVER,
    )


def _sockets(daemon: Daemon, fronts: list[tuple[str, Front]]) -> Iterator[Check]:
    paths = daemon.paths
    for path in (paths.runtime, paths.sockets):
        yield _owned(path, writable_by_others=False)
    for name, front in fronts:
        try:
            found = front.path.lstat()
        except OSError as error:
            yield Check(
                name=f"socket {name}",
                status="fail",
                detail=f"{front.path}: {error.strerror}",
                remedy="attestctl reload",
            )
            continue
        good = stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()
        yield Check(
            name=f"socket {name}",
            status="ok" if good else "fail",
            detail=str(front.path) if good else f"{front.path} is not our socket any more",
            remedy="" if good else "find out who replaced it, then restart attestd",
        )


def _port(daemon: Daemon) -> Iterator[Check]:
    port = daemon.settings.listen.port
    if port:
        yield Check(
            name="loopback port",
            status="warn",
            detail=f"{port}: TCP does not name the writer of a message, so callers there have level 1 at most",
            remedy="use the Unix sockets or attestd-connect where a client can, and set listen.port to 0",
        )


def _owned(path: Path, *, writable_by_others: bool) -> Check:
    found = path.lstat()
    good = found.st_uid == os.geteuid() and (writable_by_others or not found.st_mode & 0o022)
    return Check(
        name=f"directory {path}",
        status="ok" if good else "fail",
        detail=f"uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}",
        remedy="" if good else f"it must belong to uid {os.geteuid()} and nobody else may write it",
    )


def _of_root(path: Path) -> Check:
    try:
        found = path.stat()
    except OSError as error:
        return Check(name=f"directory {path}", status="ok", detail=f"not there: {error.strerror}, so all is default")
    good = found.st_uid == 0 and not found.st_mode & 0o022
    return Check(
        name=f"directory {path}",
        status="ok" if good else "fail",
        detail=f"uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}",
        remedy="" if good else f"chown root {path} && chmod go-w {path}",
    )


def _files(daemon: Daemon, sees: int | None) -> Iterator[Check]:
    yield _owned(daemon.paths.state, writable_by_others=False)
    if daemon.paths.user_mode:
        yield _owned(daemon.paths.config, writable_by_others=False)
    else:
        yield _of_root(daemon.paths.config)
    space = os.statvfs(daemon.paths.state)
    free = space.f_bavail * space.f_frsize
    low = free < 256 << 20
    yield Check(
        name="disk",
        status="warn" if low else "ok",
        detail=f"{free >> 20} MiB free for the audit log",
        remedy="make room: without an audit record nothing is forwarded" if low else "",
    )
    error = daemon.audit.last_error
    yield Check(
        name="audit",
        status="ok" if error is None else "fail",
        detail=error.message if error is not None else f"{daemon.audit.head().size} records" if sees is None else "on",
        remedy="" if error is None else error.hint,
    )


def _servers(fronts: list[tuple[str, Front]], sees: int | None) -> Iterator[Check]:
    for name, front in fronts:
        told = sees is None or sees in {front.owner, front.trouble_uid}
        trouble, image = front.trouble if told else "", front.image if told else None
        yield Check(
            name=f"server {name}",
            status="fail" if trouble else "ok",
            detail=trouble or (image.describe if image else "not started yet" if told else "registered"),
            remedy=f"see attestctl servers show {name}" if trouble else "",
        )
        if sees is None:
            yield from _secrets(name, front.settings)


def _secrets(name: str, server: ServerSettings) -> Iterator[Check]:
    """Whether the files with what a back end wants to see can be used; never what is in them."""
    files = [path for path in (server.token_file, *server.header_files.values()) if path]
    for path in files:
        try:
            read_secret(path)
        except ConfigurationError as error:
            yield Check(name=f"secret of {name}", status="fail", detail=error.message, remedy=error.hint)
        else:
            yield Check(name=f"secret of {name}", status="ok", detail=path)


def _seals(daemon: Daemon) -> Iterator[Check]:
    seals = daemon.seals
    for seal in seals.seals:
        state = seals.state(seal)
        status = "ok" if state in ("redirected", "refused") else "fail"
        undo = UNDO.format(server=seal.server)
        yield Check(
            name=f"seal {seal.server}",
            status=status,
            detail=f"port {seal.port}, direct connections: {state}; nftables table inet {seals.table}; undo: {undo}",
            remedy="" if status == "ok" else f"mend what is named, or undo it: {undo}",
        )
    if seals.seals and daemon.paths.user_mode and os.geteuid() != 0:
        yield Check(
            name="seals",
            status="warn",
            detail="the daemon runs as an ordinary user, whose programs can change its configuration and restart it",
            remedy="run attestd as root, or give it a user of its own",
        )


def _rest(daemon: Daemon, sees: int | None) -> Iterator[Check]:
    version = tuple(int(part) for part in sqlite3.sqlite_version.split("."))
    fixed = version >= FIXED_SQLITE
    yield Check(
        name="sqlite",
        status="ok",
        detail=f"{sqlite3.sqlite_version}"
        + ("" if fixed else "; with one writing connection its WAL bug cannot occur"),
    )
    sane = time.time() > YEAR_2020
    yield Check(
        name="clock",
        status="ok" if sane else "fail",
        detail=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        remedy="" if sane else "set the clock",
    )
    yield Check(name="policy", status="ok", detail=f"generation {daemon.generation}: {', '.join(daemon.policy.files)}")
    approvers = len(daemon.settings.approval.approvers)
    yield Check(
        name="approvers",
        status="warn" if approvers else "ok",
        detail=f"{approvers} programs may approve by configuration" if approvers else "only people may approve",
        remedy="empty approval.approvers unless this is a throw-away instance" if approvers else "",
    )
    for when, text in daemon.troubles.seen(sees, 3):
        yield Check(name="last errors", status="warn", detail=f"{when:%H:%M:%S} {text}", remedy="see attestctl status")
