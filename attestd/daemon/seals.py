"""Sealed servers: what the kernel holds closed, the listeners of redirected connections, and what undoes it.

Rules
- The state file names a seal before the kernel has it, and until the kernel has given it up. What the kernel has and
  the file does not name is taken over as sealed: only ``unseal`` opens.
- One exchange of all rules for every change, so nothing is open in between. Rules of an earlier process stay in force
  until ours replace them.
- A reload opens nothing, and neither does a server that was taken out of the registry by hand.
- At an orderly stop the seals are undone where only root can stop the daemon; where any program of its user can, they
  stay (``[seal] on_stop``).
- The kernel is looked at again and again: rules that somebody flushed are put back, and that is told.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import msgspec

from attestd.audit.protocol import Entry
from attestd.daemon.config import ServerSettings
from attestd.daemon.seal_file import How, Seal, load_seals, store_seals
from attestd.enforcement.listener import Listener
from attestd.errors import AttestdError, ConfigurationError, NothingToDoError
from attestd.evidence.sealing import Guard, Sealer, SealError
from attestd.wire.urls import Url, parse_url

if TYPE_CHECKING:
    from attestd.daemon.app import Daemon

UNDO = "attestctl servers unseal {server}; without the daemon, as root: attestd unseal --all"


class _Doors(msgspec.Struct, kw_only=True):
    """The listeners of one server."""

    ip: int = 0
    ip6: int = 0
    listeners: list[Listener] = []


class Seals:
    """Of one daemon; belongs to the loop's thread."""

    def __init__(self, daemon: Daemon, sealer: Sealer | None) -> None:
        """Nothing happens before ``start``. Without a sealer nothing can be sealed."""
        self._daemon = daemon
        self._sealer = sealer
        self._seals: tuple[Seal, ...] = ()
        self._doors: dict[str, _Doors] = {}
        self._able = False
        """Whether the kernel lets us seal; then every connection of ours is marked, so that sealing cuts none."""
        self._installed: tuple[Guard, ...] = ()
        """What the kernel has, as far as we know."""
        self.trouble = ""
        """Why what should be sealed is not."""

    @property
    def seals(self) -> tuple[Seal, ...]:
        """What is, or should be, sealed."""
        return self._seals

    @property
    def table(self) -> str:
        """What the kernel calls it."""
        return "" if self._sealer is None else self._sealer.table

    def start(self) -> None:
        """Seal again what was sealed. What cannot be sealed is trouble, not an error: attestd serves all the same."""
        kept = load_seals(self._daemon.paths.seals)
        left = self._left_over()
        ports = {seal.port for seal in kept}
        adopted = tuple(Seal(server=g.server, port=g.port, how="refuse") for g in left if g.port not in ports)
        self._seals = kept + adopted
        if not self._seals:
            return
        try:
            if adopted:
                store_seals(self._daemon.paths.seals, self._seals)
            self._install()
        except AttestdError as error:
            self._report(f"cannot seal again: {error.message}")
        names = ", ".join(f"{seal.server} (port {seal.port})" for seal in self._seals)
        detail: dict[str, str | int | bool] = {"servers": names[:512], "found": len(left), "why": self.trouble[:256]}
        verdict = "error" if self.trouble else "ok"
        self._daemon.record(Entry(kind="admin", method="seals.start", verdict=verdict, detail=detail))

    def find(self, server: str) -> Seal | None:
        """The seal of a server."""
        return next((seal for seal in self._seals if seal.server == server), None)

    def wanted(self, server: ServerSettings, how: How) -> Seal:
        """The seal that the server can have. Raises ConfigurationError, NothingToDoError, SealError."""
        if self._sealer is None:
            raise SealError("cannot seal on this system")
        if self.find(server.name) is not None:
            raise NothingToDoError(f"cannot seal {server.name!r}: it is sealed")
        url = _local(server)
        if how == "redirect" and url.scheme != "http":
            raise ConfigurationError(
                f"cannot redirect connections to {server.name!r}: it speaks TLS, which attestd cannot answer for it",
                hint=f"refuse them instead: attestctl servers seal {server.name} --refuse",
            )
        others = [name for name, front in self._daemon.fronts.items() if name != server.name and _port(front.settings)]
        for other in [name for name in others if _port(self._daemon.fronts[name].settings) == url.port]:
            raise ConfigurationError(
                f"cannot seal {server.name!r}: the server {other!r} has the same port {url.port}",
                hint="a seal is for a whole port: keep one of the two",
            )
        self._sealer.exists()  # no right to, or no nftables: said before anything is recorded or written
        return Seal(server=server.name, port=url.port, how=how)

    def seal(self, seal: Seal) -> None:
        """Close the port to everybody else. Raises ConfigurationError, SealError; then nothing has changed."""
        before = self._seals
        store_seals(self._daemon.paths.seals, (*before, seal))
        self._seals = (*before, seal)
        try:
            self._install()
        except AttestdError as error:
            self._seals = before
            self._close(seal.server)
            self._failed("server.seal", seal, error)
            store_seals(self._daemon.paths.seals, before)
            raise

    def unseal(self, server: str) -> Seal:
        """Open the port to everybody. Raises NothingToDoError, SealError, ConfigurationError."""
        found = self.find(server)
        if found is None:
            raise NothingToDoError(f"cannot unseal {server!r}: it is not sealed")
        before = self._seals
        self._seals = tuple(seal for seal in before if seal is not found)
        try:
            self._install()
        except AttestdError as error:
            self._seals = before
            self._failed("server.unseal", found, error)
            raise
        self._close(server)
        store_seals(self._daemon.paths.seals, self._seals)
        return found

    def let_through(self, sock: socket.socket) -> None:
        """Mark a connection of ours that is about to be made. Raises SealError."""
        if self._sealer is not None and self._able:
            self._sealer.let_through(sock.fileno())

    def look(self) -> None:
        """Put back what was taken from the kernel behind our back."""
        if not self._seals or self._sealer is None or self._unchanged():
            return
        was = self.trouble
        try:
            self._install()
        except AttestdError as error:
            if error.message != was:
                self._report(error.message)
            return
        text = "the seals were gone from the kernel and have been put back"
        self._daemon.trouble(text)
        self._daemon.record(Entry(kind="admin", method="seals.restore", verdict="ok", detail={"why": text}))

    def state(self, seal: Seal) -> str:
        """How it is, in words; begins with ``open`` if it is not sealed."""
        if self.trouble:
            return f"open: {self.trouble}"
        front = self._daemon.fronts.get(seal.server)
        if front is None:
            return "refused: it is not registered any more"
        named = _port(front.settings)
        if named != seal.port:
            return f"its url names port {named or 'none'} now, which is not sealed: unseal and seal again"
        doors = self._doors.get(seal.server)
        return "redirected" if doors is not None and (doors.ip or doors.ip6) else "refused"

    @property
    def stays(self) -> bool:
        """Whether an orderly stop leaves the servers sealed."""
        chosen = self._daemon.settings.seal.on_stop
        if chosen == "auto":
            return self._daemon.paths.user_mode and os.geteuid() != 0
        return chosen == "stay"

    def close(self) -> None:
        """At an orderly stop, last of all."""
        self.abandon()
        if not self._installed or self._sealer is None:
            return
        names = ", ".join(seal.server for seal in self._seals)
        if not self.stays:
            try:
                self._sealer.remove()
            except SealError as error:
                self._report(error.message)
        verb = "stay" if self.stays else "open"
        self._daemon.record(Entry(kind="admin", method=f"seals.{verb}", verdict="ok", detail={"servers": names[:512]}))

    def abandon(self) -> None:
        """Stop listening; what the kernel has stays, and what it redirected is refused."""
        for server in list(self._doors):
            self._close(server)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _left_over(self) -> tuple[Guard, ...]:
        if self._sealer is None:
            return ()
        try:
            exists = self._sealer.exists()
            self._able = True
            return self._sealer.guards() if exists else ()
        except SealError:
            return ()  # no right to look is no right to seal; if there is something to seal, that says so

    def _unchanged(self) -> bool:
        """Whether the kernel has what we installed."""
        try:
            return self._sealer is not None and bool(self._installed) and self._sealer.guards() == self._installed
        except SealError:
            return False

    def _exists(self) -> bool:
        try:
            return self._sealer is not None and self._sealer.exists()
        except SealError:
            return False

    def _install(self) -> None:
        """Have in the kernel what is wanted."""
        if self._sealer is None:
            raise SealError("cannot seal on this system")
        try:
            guards = tuple(self._guard(self._sealer, seal) for seal in self._seals)
            if guards:
                self._sealer.replace(guards)
            else:
                self._sealer.remove()
        except SealError as error:
            self.trouble = "" if self._exists() else error.message
            raise
        self._able = True
        self._installed = guards
        self.trouble = ""

    def _guard(self, sealer: Sealer, seal: Seal) -> Guard:
        if seal.how == "refuse":
            return Guard(server=seal.server, port=seal.port)
        doors = self._doors.get(seal.server)
        if doors is None:
            doors = self._doors[seal.server] = _Doors(listeners=[])
            opened = self._daemon.http.on_sealed(seal.server, seal.port)
            for door in sealer.doors():
                sock = socket.socket(fileno=door.fd)
                doors.listeners.append(self._daemon.listener(sock, seal.server, opened))
                setattr(doors, door.family, door.port)
        return Guard(server=seal.server, port=seal.port, ip=doors.ip, ip6=doors.ip6)

    def _close(self, server: str) -> None:
        doors = self._doors.pop(server, None)
        for listener in doors.listeners if doors is not None else ():
            listener.close()

    def _failed(self, method: str, seal: Seal, error: AttestdError) -> None:
        """What was recorded before it was tried has not happened."""
        detail: dict[str, str | int | bool] = {"port": seal.port, "why": error.message[:256]}
        self._daemon.record(Entry(kind="admin", method=method, server=seal.server, verdict="error", detail=detail))

    def _report(self, text: str) -> None:
        self.trouble = text
        self._daemon.trouble(text)


def _local(server: ServerSettings) -> Url:
    if server.transport not in ("http", "sse") or server.socket:
        found = "a socket" if server.socket else f"transport {server.transport}"
        raise ConfigurationError(
            f"cannot seal {server.name!r}: got {found}, expected a server with a url on this machine",
            hint="a seal closes a TCP port; a Unix socket is closed by its directory's mode",
        )
    url = parse_url(server.url)
    if not url.loopback:
        raise ConfigurationError(
            f"cannot seal {server.name!r}: {url.authority} is not this machine",
            hint="a seal closes a port of this machine: 127.0.0.1, [::1] or localhost",
        )
    return url


def _port(server: ServerSettings) -> int:
    """Its TCP port on this machine; 0: it has none."""
    try:
        return _local(server).port
    except AttestdError:
        return 0
