"""The composition root: one object that owns every part and wires them together. It decides nothing itself.

Order of a start, each step refusing with an error that says what to do: directories, settings, servers, policy, audit
log, grants (checked against the log), launcher, control socket, listeners. Stopping goes the other way. A reload
builds everything new that can be refused first, and changes nothing if any of it is.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import defaultdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from attestd import __version__
from attestd.appraisal.appraiser import Appraiser
from attestd.appraisal.digests import Naming
from attestd.appraisal.model import AttestationResult
from attestd.audit.log import AuditLogFile
from attestd.audit.protocol import Entry
from attestd.daemon.admitting import admission_of
from attestd.daemon.approvals import Approvals
from attestd.daemon.backs import ServerImage
from attestd.daemon.config import ServerSettings, Settings, load_settings
from attestd.daemon.http import HttpFronts
from attestd.daemon.installation import Installation, find_installation
from attestd.daemon.learned import remember
from attestd.daemon.links import Links
from attestd.daemon.listening import Listening
from attestd.daemon.opening import challenge, closed, open_session
from attestd.daemon.paths import (
    Paths,
    configuration_directory,
    policy_directory,
    private_directory,
    socket_directory,
)
from attestd.daemon.policy import Policy, load_policy
from attestd.daemon.polkit import Authority
from attestd.daemon.refusing import Refusing
from attestd.daemon.registry import Registered, Registry, socket_of
from attestd.daemon.relays import taken
from attestd.daemon.reloading import reload
from attestd.daemon.seals import Seals
from attestd.daemon.server_notes import backs_of
from attestd.daemon.sessions import Channel, SessionCaller, SessionInfo
from attestd.daemon.troubles import Troubles
from attestd.decision.engine import Engine
from attestd.decision.model import Deny, ToolFacts
from attestd.enforcement.bindings import Bindings
from attestd.enforcement.bridge_effects import Eras
from attestd.enforcement.connection import Connection
from attestd.enforcement.first_byte import FirstBytes
from attestd.enforcement.listener import Listener, OpenSession, tell
from attestd.enforcement.proof import Proof
from attestd.enforcement.shared import SharedServer
from attestd.enforcement.tcp_listener import dressed
from attestd.enforcement.workers import Workers
from attestd.errors import AttestdError, AuditUnavailableError, Cause, NothingToDoError
from attestd.evidence.acceptors import Acceptors
from attestd.evidence.model import Peer
from attestd.evidence.protocol import Kernel
from attestd.evidence.recorder import Recorder
from attestd.evidence.sealing import Sealer
from attestd.grants.model import Grant
from attestd.launch.protocol import Launcher
from attestd.mediation import Attested
from attestd.wire.lists import tool_hints
from attestd.wire.model import ListKind

LOG = logging.getLogger("attestd")
SWEEP_S = 0.5
"""How often sessions are looked at without a message: an exec ends one within this time."""
FLUSH_S = 5.0
WORKERS = 8
READERS = 4
"""Threads that read the audit log for people."""


class Front(msgspec.Struct, kw_only=True):
    """One served server."""

    settings: ServerSettings
    owner: int | None = None
    """The user that it is for; None: everybody."""
    listener: Listener
    path: Path
    bindings: Bindings
    silent: FirstBytes
    """Connections that have said nothing yet."""
    shared: SharedServer | None = None
    eras: dict[int, Eras] = msgspec.field(default_factory=partial(defaultdict, Eras))
    """What is known of the eras of its back end, by the uid that it serves: another user's may be another program."""
    image: ServerImage | None = None
    trouble: str = ""
    trouble_uid: int | None = None
    """For whom it was tried."""


class Daemon:
    """One running attestd. Everything but evidence collection happens on the loop's thread."""

    def __init__(
        self,
        *,
        paths: Paths,
        kernel: Kernel,
        recorder: Recorder,
        launcher: Launcher,
        host_id: str,
        acceptors: Acceptors | None = None,
        sealer: Sealer | None = None,
        listening: Listening | None = None,
        authority: Authority | None = None,
    ) -> None:
        """Without ``acceptors``, servers on loopback TCP cannot be attested; without ``sealer``, none can be sealed.

        Without ``listening``, every socket is made here; without ``authority``, only root decides on a system
        installation.
        """
        self.paths = paths
        self.listening = listening or Listening()
        self.recorder = recorder
        self.kernel = kernel
        self.launcher = launcher
        self.started = time.time()
        self.loop = asyncio.get_running_loop()
        self.workers, self.readers = Workers(WORKERS, "evidence"), Workers(READERS, "log")
        self.authority = authority
        self.troubles = Troubles()
        self.registry = Registry(paths)
        self.fronts: dict[str, Front] = {}
        self.sessions: dict[Channel, SessionInfo] = {}
        self.tools: dict[tuple[str, int], dict[str, ToolFacts]] = {}
        self.generation = self.grants_version = 0
        self.installation: Installation = find_installation()
        self.links, self.refusals = Links(self), Refusing(self)
        self._timers: list[asyncio.TimerHandle] = []
        configuration_directory(paths)
        private_directory(paths.state, 0o700)
        self.settings: Settings = load_settings(paths.config_file)
        self.host_id = self.settings.identity.host_id or host_id
        self.naming = Naming(trust_domain=self.settings.identity.trust_domain, host_id=self.host_id)
        servers = self.registry.load(self.settings)
        self.policy: Policy = load_policy(policy_directory(), paths.policies, self.host_id)
        self.appraiser: Appraiser = self._made_appraiser()
        """With the class table of the active generation; a new one for each, so it never answers from an older one."""
        self.admission = admission_of(self.settings.limits, user_mode=paths.user_mode)
        self.audit = AuditLogFile(
            paths.audit, f"attestd.local/{self.host_id[:16]}", high_water=paths.state / "audit.head"
        )
        try:
            self.approvals = Approvals(self)
        except BaseException:
            self.audit.close()
            raise
        try:
            self.seals = Seals(self, sealer)
            self.backs, self.http_backs = backs_of(self, acceptors)
            self.http = HttpFronts(self)
            self.record(Entry(kind="log", id="start", detail={"version": __version__, "mode": self.mode}))
            self.activate(self.policy)
            self._open_fronts(servers)
        except BaseException:
            self._close_fronts()
            self.approvals.close()
            self.audit.close()
            raise
        self._later(SWEEP_S, self._sweep)
        self._later(FLUSH_S, self._flush)

    # -- for sessions (``sessions.Desk``) ---------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """Of the active generation."""
        return self.policy.engine

    @property
    def mode(self) -> str:
        """``user`` or ``system``."""
        return "user" if self.paths.user_mode else "system"

    def own_grants(self, result: AttestationResult, server: str) -> tuple[Grant, ...]:
        """The caller's own grants on this server."""
        return self.approvals.store.index.own(result, server)

    def use_grants(self, grants: tuple[str, ...], session: str, now_ns: int) -> bool:
        """Count a use, or use up."""
        return self.approvals.use(grants, session, now_ns)

    def pend(self, caller: SessionCaller, method: str, name: str, deny: Deny, now_ns: int) -> str | None:
        """Put a refused wish on the list, and learn from it which eras the program asks for."""
        self.links.habits(caller.result.program).said(method, refused=True)
        return self.approvals.pend(caller, method, name, deny, now_ns)

    # -- servers ----------------------------------------------------------------------------------------------------

    def _open_fronts(self, servers: dict[str, Registered]) -> None:
        private_directory(self.paths.runtime, 0o700 if self.paths.user_mode else 0o755)
        socket_directory(self.paths, self.paths.sockets)
        for server in servers.values():
            self.open_front(server.settings, server.owner)
        self.tell_owners()
        self.http.listen(self.settings.listen.port)
        self.listening.settle(self.paths.sockets, self.settings.listen.port)
        self.seals.start()

    def listen(self, server: ServerSettings, owner: int | None) -> socket.socket:
        """The socket that one server is to be reached at. Raises ConfigurationError."""
        path = socket_of(self.paths.sockets, server.name)
        if owner is not None:
            socket_directory(self.paths, path.parent)
        return self.listening.server(server.name, path)

    def open_front(self, server: ServerSettings, owner: int | None = None, sock: socket.socket | None = None) -> Front:
        """Listen for one server, its name the whole one; on ``sock``, where it is there. Raises ConfigurationError."""
        path = socket_of(self.paths.sockets, server.name)
        sock = sock or self.listen(server, owner)
        listener = self.listener(sock, server.name, partial(self._await_framing, server.name), owner)
        silent = FirstBytes(self.loop)
        front = Front(settings=server, owner=owner, listener=listener, path=path, bindings=Bindings(), silent=silent)
        if server.shared:
            limits = self.settings.limits.wire
            front.shared = SharedServer(self.loop, partial(self.links.below_shared, front), limits, __version__)
        self.fronts[server.name] = front
        return front

    def tell_owners(self) -> None:
        """What is wrong with the servers of users."""
        for uid, text in self.registry.troubles.items():
            self.trouble(text, uid)

    def listener(self, sock: socket.socket, server: str, opened: OpenSession, owner: int | None = None) -> Listener:
        """Accept and attest on one listening socket; with ``owner`` nobody else is served there."""
        return Listener(
            loop=self.loop,
            sock=sock,
            server=server,
            kernel=self.kernel,
            appraiser=lambda: self.appraiser,
            workers=self.workers,
            attest_seconds=lambda: self.settings.limits.attest_seconds,
            admission=self.admission,
            open_session=partial(self._opened, opened),
            refused=self.refusals.turned_away,
            dressed=dressed,
            owner=owner,
        )

    def close_front(self, name: str, cause: Cause, text: str, *, pause: bool = False) -> Front:
        """Stop serving one server; its sessions end. ``pause``: the daemon ends, and may be back."""
        front = self.server(name)
        del self.fronts[name]
        front.listener.close()
        front.silent.close()
        if pause:
            self.listening.paused(front.path)
        else:
            self.listening.gone(name, front.path)
        for connection, info in list(self.sessions.items()):
            if info.server == name:
                connection.close(cause, text)
        if front.shared is not None:
            front.shared.close()
        self.http_backs.forget(name)
        self.tools = {key: tools for key, tools in self.tools.items() if key[0] != name}
        self.http.forget(name)
        return front

    # -- sessions ---------------------------------------------------------------------------------------------------

    def _opened(self, opened: OpenSession, sock: socket.socket, peer: Peer, attested: Attested, old_bytes: int) -> None:
        try:
            opened(sock, peer, attested, old_bytes)
        except BaseException as error:
            if isinstance(error, AuditUnavailableError):
                tell(sock, "", Cause.AUDIT_UNAVAILABLE, error.message, dressed)
            self._dismiss(sock, peer, attested)
            if not isinstance(error, AttestdError):
                raise
            self.trouble(f"cannot open a session: {error.message}")

    def _dismiss(self, sock: socket.socket, peer: Peer, attested: Attested) -> None:
        attested.watch.close()
        sock.close()
        self.admission.leave(peer.uid)

    def _await_framing(self, server: str, sock: socket.socket, peer: Peer, attested: Attested, old_bytes: int) -> None:
        """The first byte of a connection decides what is spoken on it."""

        def spoken(http: bool) -> None:
            def opened(*_: object) -> None:
                if http:
                    self.http.on_unix(self.server(server).settings.name, sock, peer, attested, old_bytes)
                else:
                    self._start_session(self.server(server), sock, peer, attested, old_bytes)

            self._opened(opened, sock, peer, attested, old_bytes)

        self.server(server).silent.await_one(
            sock, spoken, partial(self._dismiss, sock, peer, attested), partial(self._changed, server, peer, attested)
        )

    def _changed(self, server: str, peer: Peer, attested: Attested) -> bool:
        cause = attested.watch.verify(0)
        if cause is not None:
            self.refusals.turned_away(server, peer, cause, "the attested process changed before it said anything")
        return cause is not None

    def server(self, server: str) -> Front:
        """A served server. Raises NothingToDoError."""
        front = self.fronts.get(server)
        if front is None:
            raise NothingToDoError(f"cannot find the server {server!r}", hint="list them with: attestctl servers list")
        return front

    def _start_session(self, front: Front, sock: socket.socket, peer: Peer, attested: Attested, old_bytes: int) -> None:
        proof = Proof(relayed=attested.relayed, old_bytes=old_bytes, challenge=challenge(), proven=attested.proven)
        opened = open_session(self, front, peer, attested, proof=proof, watch=attested.watch)
        connection = Connection(
            loop=self.loop,
            sock=sock,
            session=opened.session,
            watch=attested.watch,
            peer_pid=peer.pid,
            limits=self.settings.limits.wire,
            open_link=partial(self.links.open, front),
            ended=self._connection_ended,
            take=partial(taken, attested),
        )
        self.sessions[connection] = SessionInfo(
            id=opened.id,
            server=front.settings.name,
            connection=connection,
            caller=opened.caller,
            settle=opened.settle,
            peer=peer,
            since=datetime.now(UTC),
        )

    def _connection_ended(self, connection: Connection, cause: str, text: str) -> None:
        info = self.session_ended(connection, cause, text)
        if info is not None:
            self.admission.leave(info.peer.uid)

    def session_ended(self, channel: Channel, cause: str, text: str) -> SessionInfo | None:
        """Record the end of a session, once."""
        info = self.sessions.pop(channel, None)
        if info is None:
            return None
        unwritten = info.settle(time.time_ns())
        if unwritten:
            self.trouble(f"cannot record {unwritten} more refusals of session {info.id}")
        self.record(closed(info, channel, cause, text))
        return info

    def learn(self, server: str, uid: int, kind: ListKind, result: dict[str, Any]) -> None:
        """What the tools of a server are, from its own list, for callers of the uid that it was shown to."""
        if kind is ListKind.TOOLS:
            hints = {
                name: msgspec.convert(hint, ToolFacts, from_attributes=True)
                for name, hint in tool_hints(result).items()
            }
            remember(self.tools.setdefault((server, uid), {}), hints)
            self.http.learn(server, uid, result)

    def changed(self) -> None:
        """Grants or policy are not what they were: every session decides anew from now on, and clients are told."""
        self.grants_version += 1
        for connection in list(self.sessions):
            connection.grants_changed()

    # -- upkeep -----------------------------------------------------------------------------------------------------

    def record(self, entry: Entry) -> int:
        """Append what is not before an effect; a failure is trouble, not an exception. The sequence number, or -1."""
        try:
            return self.audit.append(entry, time.time_ns())
        except AuditUnavailableError as error:
            self.trouble(error.message)
            return -1

    def trouble(self, text: str, uid: int | None = None) -> None:
        """Remember an error for ``status``; one that is the affair of one user only is told with its uid."""
        if self.troubles.add(text, uid):
            LOG.warning("%s", text if uid is None else f"uid {uid}: {text}")

    def reload(self) -> tuple[str, ...]:
        """Read settings, servers and policy again; what changed, in words. Raises AttestdError: nothing changed."""
        return reload(self)

    def _made_appraiser(self) -> Appraiser:
        references = self.installation.references(user_mode=self.paths.user_mode)
        return Appraiser(table=self.policy.table, references=references, naming=self.naming)

    def activate(self, policy: Policy) -> None:
        """Decide by this policy from now on."""
        self.policy = policy
        self.appraiser = self._made_appraiser()
        self.generation += 1
        digest = policy.engine.generation
        self.record(Entry(kind="admin", id=digest, method="policy.activate", verdict="ok", generation=self.generation))
        self.changed()

    def _sweep(self) -> None:
        for connection in list(self.sessions):
            connection.tick()
        for front in self.fronts.values():
            front.silent.tick()
        self.refusals.settle(end=False)
        self.http.front.tick()
        self._later(SWEEP_S, self._sweep)

    def _flush(self) -> None:
        try:
            self.approvals.flush()
        except AttestdError as error:
            self.trouble(error.message)
        if self.audit.last_error is not None:
            self.trouble(self.audit.last_error.message)
        self.seals.look()
        self._later(FLUSH_S, self._flush)

    def _later(self, seconds: float, call: Any) -> None:
        self._timers = [timer for timer in self._timers if not timer.cancelled() and timer.when() > self.loop.time()]
        self._timers.append(self.loop.call_later(seconds, call))

    def _close_fronts(self) -> None:
        self.seals.abandon()
        self.http.close()
        for name in list(self.fronts):
            self.close_front(name, Cause.SHUTTING_DOWN, "attestd is stopping", pause=True)

    def abandon(self) -> None:
        """Undo a start that could not be finished."""
        for timer in self._timers:
            timer.cancel()
        self._close_fronts()
        self.workers.shutdown()
        self.readers.shutdown()
        self.approvals.close()
        self.audit.close()

    async def close(self) -> None:
        """End everything in order; what was recorded is on disk when this returns."""
        for timer in self._timers:
            timer.cancel()
        self._close_fronts()
        await self.http_backs.close()
        await self.launcher.close()
        self.workers.shutdown()
        self.readers.shutdown()
        self.seals.close()
        self.refusals.settle(end=True)
        self.record(Entry(kind="log", id="stop"))
        self.approvals.close()
        self.audit.close()
