"""HTTP beside lines: the loopback port, and how HTTP connections and sessions are wired to the daemon's parts."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from attestd.daemon.learned import remember
from attestd.daemon.opening import challenge, open_session
from attestd.daemon.sessions import SessionInfo
from attestd.enforcement.http_connection import HttpCaller
from attestd.enforcement.http_front import HttpFront
from attestd.enforcement.http_session import HttpSession
from attestd.enforcement.listener import Listener, OpenSession
from attestd.enforcement.proof import ManyProof, Marks
from attestd.enforcement.shared_watch import SharedWatch
from attestd.evidence.model import Peer
from attestd.mediation import Attested
from attestd.wire.http_rules import own_hosts
from attestd.wire.repeated import Annotations, annotated
from attestd.wire.urls import parse_url

if TYPE_CHECKING:
    from attestd.daemon.app import Daemon


class HttpFronts:
    """The daemon's HTTP side."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._port = 0
        self._listeners: list[Listener] = []
        self._annotations: dict[tuple[str, int], dict[str, Annotations]] = {}
        self.front = HttpFront(
            loop=daemon.loop,
            limits=lambda: daemon.settings.limits.wire,
            origins=lambda: daemon.settings.listen.origins,
            annotations=lambda server, uid, tool: self._annotations.get((server, uid), {}).get(str(tool), {}),
            sessions_per_uid=lambda: daemon.settings.limits.connections_per_uid,
            opener=self._open,
            refused=daemon.refusals.turned_away,
            left=lambda peer: daemon.admission.leave(peer.uid),
        )

    def listen(self, port: int) -> None:
        """Serve this port of the loopback addresses, and no other any more; 0: none. Raises ConfigurationError."""
        if port == self._port:
            return
        sockets = self._daemon.listening.loopback(port) if port else []
        for listener in self._listeners:
            listener.close()
        self._port = port
        self._listeners = [self._daemon.listener(sock, "", self._on_loopback) for sock in sockets]

    def learn(self, server: str, uid: int, result: dict[str, Any]) -> None:
        """Which arguments of its tools are repeated in headers, from the server's own list as this uid was shown it."""
        remember(self._annotations.setdefault((server, uid), {}), annotated(result))

    def forget(self, server: str) -> None:
        """The server is served no more."""
        self._annotations = {key: each for key, each in self._annotations.items() if key[0] != server}

    def close(self) -> None:
        """End every connection and stop listening."""
        for listener in self._listeners:
            listener.close()
        self._listeners = []
        self._port = 0
        self.front.close()

    def on_unix(self, server: str, sock: socket.socket, peer: Peer, attested: Attested, old_bytes: int) -> None:
        """A connection on the socket of one server whose first byte is HTTP's."""
        old = float("inf") if attested.relayed else old_bytes
        self._serve(sock, attested, peer=peer, old=old, server=server)

    def _on_loopback(self, sock: socket.socket, peer: Peer, attested: Attested, old_bytes: int) -> None:
        """A connection on the port. How much was written before the attestation cannot be told there.

        Only the attestation knows the process: ``peer`` is its uid.
        """
        del peer, old_bytes
        self._serve(sock, attested, hosts=own_hosts(self._port))

    def on_sealed(self, server: str, port: int) -> OpenSession:
        """What to do with a connection to the port of a sealed server: whatever the path, it is for that server."""

        def opened(sock: socket.socket, peer: Peer, attested: Attested, old_bytes: int) -> None:
            del peer, old_bytes
            settings = self._daemon.server(server).settings
            events = parse_url(settings.url).path if settings.transport == "sse" else ""
            self._serve(sock, attested, server=server, hosts=own_hosts(port), events=events)

        return opened

    def _serve(
        self,
        sock: socket.socket,
        attested: Attested,
        *,
        peer: Peer | None = None,
        old: float = float("inf"),
        server: str | None = None,
        hosts: frozenset[str] | None = None,
        events: str | None = None,
    ) -> None:
        caller = HttpCaller(
            peer=peer or attested.evidence.peer,
            attested=attested,
            watch=SharedWatch(self._daemon.loop, attested.watch),
            marks=Marks(0 if attested.proven else old),
            server=server,
            hosts=hosts,
            events=events,
        )
        self.front.serve(sock, caller)

    def _open(
        self, server: str, kind: str, name: str, caller: HttpCaller, ended: Callable[[HttpSession, str, str], None]
    ) -> HttpSession | None:
        daemon = self._daemon
        front = daemon.fronts.get(server)
        if front is None or front.owner not in {None, caller.peer.uid}:
            return None
        proof = ManyProof(challenge())
        opened = open_session(daemon, front, caller.peer, caller.attested, proof=proof, watch=caller.watch)

        def both(session: HttpSession, cause: str, text: str) -> None:
            ended(session, cause, text)
            daemon.session_ended(session, cause, text)

        session = HttpSession(
            loop=daemon.loop,
            kind=kind,
            name=name,
            word=secrets.token_hex(8),
            caller=caller,
            session=opened.session,
            proof=proof,
            open_link=partial(daemon.links.open, front),
            ended=both,
        )
        daemon.sessions[session] = SessionInfo(
            id=opened.id,
            server=server,
            connection=session,
            caller=opened.caller,
            settle=opened.settle,
            peer=caller.peer,
            since=datetime.now(UTC),
        )
        return session
