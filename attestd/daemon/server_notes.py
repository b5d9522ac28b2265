"""What is noted about back ends while they are opened: in the audit log first, then for ``servers show``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from attestd.audit.protocol import Entry
from attestd.daemon.backs import Backs, ServerImage
from attestd.daemon.http_backs import HttpBacks
from attestd.evidence.acceptors import Acceptors
from attestd.grants.pins import Pin

if TYPE_CHECKING:
    from attestd.daemon.app import Daemon


class ServerNotes:
    """Of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def seen(self, name: str, image: ServerImage) -> None:
        """An attested back end, before a byte is passed to it."""
        front = self._daemon.fronts.get(name)
        if front is not None:
            front.image = image
            front.trouble = ""
        self._daemon.record(
            Entry(
                kind="hop",
                server=name,
                method="server",
                verdict="ok",
                pid=image.pid,
                uid=image.uid,
                detail={"image": image.describe},
            )
        )

    def pinned(self, pin: Pin) -> None:
        """A program is about to be pinned. Raises AuditUnavailableError."""
        self._daemon.audit.append(
            Entry(
                kind="admin",
                method="server.pin",
                server=pin.server,
                verdict="ok",
                detail={"url": pin.url, "program": pin.program, "image": pin.describe[:512]},
            ),
            time.time_ns(),
        )

    def state(self, name: str, trouble: str) -> None:
        """How the last attempt to reach a back end ended; empty: it was reached."""
        front = self._daemon.fronts.get(name)
        if front is not None:
            front.trouble, front.trouble_uid = trouble, None


def backs_of(daemon: Daemon, acceptors: Acceptors | None) -> tuple[Backs, HttpBacks]:
    """The back ends of a daemon, which note here what they see."""
    notes = ServerNotes(daemon)
    backs = Backs(
        loop=daemon.loop,
        launcher=daemon.launcher,
        kernel=daemon.kernel,
        workers=daemon.workers,
        attest_seconds=lambda: daemon.settings.limits.attest_seconds,
        seen=notes.seen,
    )
    http = HttpBacks(
        loop=daemon.loop,
        backs=backs,
        acceptors=acceptors,
        pins=daemon.approvals.store,
        pinned=notes.pinned,
        state=notes.state,
        let_through=daemon.seals.let_through,
    )
    return backs, http
