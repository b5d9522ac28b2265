"""The way to one HTTP back end: connect, and prove who is at the other end before a byte is written.

Loopback: the process that has accepted this very connection must be the pinned program (``peer.program``, or the
program that answered first), of the expected user. That is asked for every connection, because another process can
take the port at any time. Unix socket: the listener, as for a plain one. Anywhere else: TLS, with the system's
certificate authorities or the ones that the registry names. Looking a process up is remembered for as long as its own
descriptors say that it is the same process with the same image.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import msgspec

from attestd.appraisal.digests import code_known
from attestd.daemon.backs import CONNECT_S, Backs, ServerImage, demand_uid
from attestd.daemon.config import ServerSettings
from attestd.daemon.secret_files import read_secret
from attestd.enforcement.http_wire import Headers
from attestd.enforcement.link import ServerError
from attestd.errors import AttestdError, Cause, ConfigurationError, EvidenceError
from attestd.evidence.acceptors import Acceptor, Acceptors
from attestd.evidence.protocol import Watch
from attestd.evidence.sealing import SealError
from attestd.grants.pins import Pin, PinStore
from attestd.wire.urls import parse_url

KNOWN = 16
"""Processes of one server that are remembered."""
POLL_S = 0.001
POLL_MAX_S = 0.05
KEEPALIVE_S = 60


class _Known(msgspec.Struct, frozen=True):
    """A process that was looked at, held by descriptors."""

    watch: Watch
    image: ServerImage


class HttpDoor:
    """Implements ``enforcement.http_client.Door``. One for each registered server; links share it."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        server: ServerSettings,
        backs: Backs,
        acceptors: Acceptors | None,
        pins: PinStore,
        pinned: Callable[[Pin], None],
        state: Callable[[str, str], None],
        let_through: Callable[[socket.socket], None],
    ) -> None:
        """``pinned(pin)`` is told before a pin is kept; it may raise. ``state(server, trouble)`` after each connect.

        ``let_through(sock)`` before a connect on this machine, whose port may be sealed.
        """
        self._loop = loop
        self._server = server
        self._backs = backs
        self._acceptors = acceptors
        self._pins = pins
        self._pinned = pinned
        self._state = state
        self._let_through = let_through
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._listener: ServerImage | None = None
        self.url = parse_url(server.url)
        self.tls: ssl.SSLContext | None = None
        self.own_headers: Headers = []

    def prepare(self) -> None:
        """Read certificates and secrets, anew each time. Raises ServerError."""
        server = self._server
        try:
            if self.url.scheme == "https" and self.tls is None:
                self.tls = ssl.create_default_context(cafile=server.ca_file or None)
                self.tls.set_alpn_protocols(["http/1.1"])
            headers = [(name, read_secret(path)) for name, path in server.header_files.items()]
            if server.token_file:
                headers.append(("Authorization", f"Bearer {read_secret(server.token_file)}"))
        except ConfigurationError as error:
            raise ServerError(Cause.SERVER_UNAVAILABLE, error.message, hint=error.hint) from error
        except (OSError, ssl.SSLError) as error:
            text = f"cannot use the certificates of {server.ca_file or 'the system'}: {error.strerror or error}"
            raise ServerError(Cause.SERVER_UNAVAILABLE, text) from error
        self.own_headers = headers

    def close(self) -> None:
        """Let go of every process."""
        while self._known:
            self._known.popitem()[1].watch.close()

    async def connect(self) -> socket.socket:
        """See the protocol."""
        try:
            sock = await self._connect()
        except ServerError as error:
            self._state(self._server.name, error.message)
            raise
        self._state(self._server.name, "")
        return sock

    async def _connect(self) -> socket.socket:
        if self._server.socket:
            sock, image = await self._backs.connect_unix(self._server, known=self._listener)
            self._listener = image
            return sock
        sock = await self._tcp()
        try:
            if ipaddress.ip_address(sock.getpeername()[0].partition("%")[0]).is_loopback:
                await self._attest(sock)
            else:
                self._demand_tls()
        except OSError as error:
            sock.close()
            raise self._unavailable("it closed the connection") from error
        except BaseException:
            sock.close()
            raise
        return sock

    # -- TCP --------------------------------------------------------------------------------------------------------

    async def _tcp(self) -> socket.socket:
        reason = "the name has no address"
        for family, address in await self._addresses():
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
            try:
                if ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
                    self._let_through(sock)
                await asyncio.wait_for(self._loop.sock_connect(sock, address), CONNECT_S)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if hasattr(socket, "TCP_KEEPIDLE"):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
            except SealError as error:
                sock.close()
                reason = error.message
            except (OSError, TimeoutError) as error:
                sock.close()
                number = error.errno if isinstance(error, OSError) else None
                reason = "it does not answer" if number is None else os.strerror(number)
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise self._unavailable(reason)

    async def _addresses(self) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        host, port = self.url.host, self.url.port
        if host == "localhost":  # never looked up: nobody's name server says what this machine is
            return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
        try:
            found = await asyncio.wait_for(self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), CONNECT_S)
        except (OSError, TimeoutError) as error:
            raise self._unavailable("its name is not known") from error
        return [(family, (str(address[0]), port)) for family, _, _, _, address in found]

    def _demand_tls(self) -> None:
        if self.tls is None:
            raise ServerError(Cause.SERVER_UNTRUSTED, f"{self.url.authority} is not this machine")

    def _unavailable(self, reason: str) -> ServerError:
        return ServerError(Cause.SERVER_UNAVAILABLE, f"cannot connect to {self.url.authority}: {reason}")

    # -- who accepted -----------------------------------------------------------------------------------------------

    async def _attest(self, sock: socket.socket) -> None:
        acceptors = self._acceptors
        if acceptors is None:
            raise ServerError(Cause.SERVER_UNTRUSTED, "cannot attest loopback servers on this system")
        try:
            acceptor = await self._accepted(acceptors, sock)
            for pid in acceptor.pids:
                await self._attest_process(acceptors, pid, acceptor)
        except EvidenceError as error:
            if error.cause is Cause.PEER_GONE:
                raise self._unavailable("it closed the connection, or ended") from error
            text = f"cannot attest the server on {self.url.authority}: {error.message}"
            raise ServerError(Cause.SERVER_UNTRUSTED, text, hint=error.hint) from error

    async def _accepted(self, acceptors: Acceptors, sock: socket.socket) -> Acceptor:
        until, pause = self._loop.time() + CONNECT_S, POLL_S
        while True:
            found = await self._look(acceptors, sock)
            if found is not None:
                return found
            if _ended(sock):
                raise self._unavailable("it closed the connection")
            if self._loop.time() > until:
                raise self._unavailable(f"no process has accepted the connection in {CONNECT_S:g} s")
            await asyncio.sleep(pause)  # the kernel tells nobody when a connection is accepted
            pause = min(2 * pause, POLL_MAX_S)

    async def _look(self, acceptors: Acceptors, sock: socket.socket) -> Acceptor | None:
        held = sock.dup()  # what hangs keeps a socket of its own

        def release(found: Acceptor | None) -> None:
            del found
            held.close()

        near = tuple(reversed(self._known))
        found = await self._backs.work(partial(acceptors.find, held.fileno(), near), release)
        held.close()
        return found

    async def _attest_process(self, acceptors: Acceptors, pid: int, acceptor: Acceptor) -> None:
        known = self._known.get(pid)
        if known is not None and known.watch.verify(0) in (None, Cause.TRACED):
            self._known.move_to_end(pid)
            self._demand_program(known.image, certain=True)
            return
        self._forget(pid)
        collected = await self._backs.work(partial(self._backs.kernel.collect_pid, pid), _release)
        try:
            link = collected.evidence.chain[0]
            collected.watch.pin_accountable(0)
            image = self._backs.examined(self._server, collected.evidence)
            demand_uid(self._server, image.uid, self.url.authority)
            self._demand_program(image, certain=code_known(link))
            same = collected.watch.verify(0) in (None, Cause.TRACED) and acceptors.holds(pid, acceptor)
            self._demand_same(same=same)
            self._backs.seen(self._server.name, image)
        except BaseException:
            collected.watch.close()
            raise
        self._known[pid] = _Known(collected.watch, image)
        while len(self._known) > KNOWN:
            self._forget(next(iter(self._known)))

    def _demand_program(self, image: ServerImage, *, certain: bool) -> None:
        """The pin, which is made if there is none and the registry names no program either."""
        server = self._server
        wanted, url = server.peer.program, self.url.text
        if wanted is None:
            pin = self._pins.pin(server.name, url)
            wanted = None if pin is None else pin.program
        if wanted is None and server.peer.exe_sha256 is None:
            if not certain:
                raise ServerError(
                    Cause.SERVER_UNTRUSTED,
                    f"cannot pin {image.describe}: what it runs cannot be told",
                    hint="set server.peer.exe_sha256, or start it from a file",
                )
            pin = Pin(
                server=server.name, url=url, program=image.digest, describe=image.describe, since_ns=time.time_ns()
            )
            try:
                self._pinned(pin)
                self._pins.put_pin(pin)
            except AttestdError as error:
                raise ServerError(Cause.SERVER_UNAVAILABLE, f"cannot pin the server: {error.message}") from error
        elif wanted is not None and image.digest != wanted:
            text = (
                f"program {image.digest[:16]} answers on {self.url.authority}, expected {wanted[:16]}; "
                f"if it was updated: attestctl servers trust {server.name}; it is {image.describe}"
            )
            raise ServerError(Cause.SERVER_UNTRUSTED, text)

    def _demand_same(self, *, same: bool) -> None:
        if not same:
            text = f"who answers on {self.url.authority} changed while it was attested"
            raise ServerError(Cause.SERVER_UNTRUSTED, text)

    def _forget(self, pid: int) -> None:
        known = self._known.pop(pid, None)
        if known is not None:
            known.watch.close()


def _ended(sock: socket.socket) -> bool:
    """Whether the server has closed a connection on which nothing was said."""
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False


def _release(collected: object) -> None:
    watch = getattr(collected, "watch", None)
    if watch is not None:
        watch.close()
