"""One listening socket for one server: accept, limit, attest, open a session.

The socket is asked to name writers before it listens, so every accepted connection inherits it (``writers``). Limits
per uid come before attestation, because attestation is the expensive step. A caller that cannot be attested at all is
told so in one JSON-RPC error and disconnected; one that can, but holds nothing, gets a session in which everything is
refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from attestd.appraisal.appraiser import Appraiser
from attestd.enforcement.workers import TooSlowError, Workers
from attestd.enforcement.writers import name_writers, queued_bytes
from attestd.errors import Cause, ConfigurationError, EvidenceError
from attestd.evidence.model import Peer
from attestd.evidence.protocol import Kernel
from attestd.mediation import Attested, attest
from attestd.wire.model import REFUSED
from attestd.wire.refusal import CLAUSES, error_line, shown

BACKLOG = 512
TAKEN_AT_ONCE = 64
"""Connections that are taken before anything else is looked at."""
TURNED_AWAY_AT_ONCE = 16
BREATH_S = 0.02
"""After so many that were over a limit nothing is taken for so long: who floods is not to keep the loop busy."""
USERS = 1024
FULL_AGAIN_S = 60.0
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class Admission:
    """Connection limits per uid, for all servers together."""

    def __init__(
        self, *, connections: int, attesting: int, a_minute: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``connections`` per uid that are open; ``attesting`` per uid that wait for attestation.

        ``a_minute``: new ones per uid in a minute, which one that was quiet may use at once; 0: any number.
        """
        self._limit = connections
        self._waiting_limit = attesting
        self._a_minute = a_minute
        self._clock = clock
        self._left: dict[int, tuple[float, float]] = {}
        """By uid: how many more may come now, and when that was so."""
        self._open: Counter[int] = Counter()
        self._waiting: Counter[int] = Counter()

    def set_limits(self, *, connections: int, attesting: int, a_minute: int = 0) -> None:
        """Other limits from now on; what is open stays."""
        self._limit = connections
        self._waiting_limit = attesting
        self._a_minute = a_minute

    def enter(self, uid: int) -> bool:
        """Count a new connection in, unless the uid has too many."""
        if self._open[uid] >= self._limit or self._waiting[uid] >= self._waiting_limit:
            return False
        if self._a_minute and not self._rested(uid):
            return False
        self._open[uid] += 1
        self._waiting[uid] += 1
        return True

    def _rested(self, uid: int) -> bool:
        now = self._clock()
        left, since = self._left.get(uid, (float(self._a_minute), now))
        left = min(float(self._a_minute), left + (now - since) * self._a_minute / 60)
        self._left[uid] = (max(left - 1, left if left < 1 else 0), now)
        if len(self._left) > USERS:
            self._left = {each: state for each, state in self._left.items() if now - state[1] < FULL_AGAIN_S}
        return left >= 1

    def attested(self, uid: int) -> None:
        """The expensive step is over."""
        self._waiting[uid] -= 1

    def leave(self, uid: int) -> None:
        """The connection has ended."""
        self._open[uid] -= 1
        if self._open[uid] <= 0:
            del self._open[uid]
            del self._waiting[uid]


OpenSession = Callable[[socket.socket, Peer, Attested, int], None]
"""Takes over the socket: peer, attestation, and the number of bytes that were queued when it ended."""


class Listener:
    """The front of one server."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        server: str,
        kernel: Kernel,
        appraiser: Callable[[], Appraiser],
        workers: Workers,
        attest_seconds: Callable[[], float],
        admission: Admission,
        open_session: OpenSession,
        refused: Callable[[str, Peer | None, Cause, str], None],
        dressed: Callable[[socket.socket, bytes], bytes] = lambda _, line: line,
        owner: int | None = None,
    ) -> None:
        """``dressed`` puts the line of a refusal into the framing that the client speaks.

        ``owner``: the uid that alone is served here. Anybody else is not told a word, as if nothing were there.
        """
        self._loop = loop
        self._sock = sock
        self._server = server
        self._kernel = kernel
        self._appraiser = appraiser
        self._workers = workers
        self._attest_seconds = attest_seconds
        self._admission = admission
        self._open_session = open_session
        self._refused = refused
        self._dressed = dressed
        self._owner = owner
        self._tasks: set[asyncio.Task[None]] = set()
        loop.add_reader(sock.fileno(), self._acceptable)

    def close(self) -> None:
        """Stop accepting; open sessions stay."""
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for task in self._tasks:
            task.cancel()

    def _acceptable(self) -> None:
        """Take what waits, many at a time: the queue is the kernel's and one for all users, the limits are ours."""
        turned_away = 0
        for _ in range(TAKEN_AT_ONCE):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors: refuse by waiting, and say so
                self._refused(self._server, None, Cause.LIMIT_CONNECTIONS, f"cannot accept: {error.strerror}")
                self._pause(0.1)
                return
            turned_away += not self._accepted(connection)
            if turned_away >= TURNED_AWAY_AT_ONCE:
                self._pause(BREATH_S)
                return

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._loop.call_later(seconds, self._retry)

    def _accepted(self, connection: socket.socket) -> bool:
        """Whether it may be attested."""
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        try:
            # 0 the kernel's word, and the limits
            peer = self._kernel.peer(connection.fileno())
        except EvidenceError as error:
            self._turn_away(connection, None, error.cause, error.message)
            return False
        except OSError as error:
            self._turn_away(connection, None, _ours(error), f"cannot ask the kernel for the peer: {error.strerror}")
            return False
        if self._owner not in {None, peer.uid}:
            self._refused(self._server, peer, Cause.NOT_FOUND, f"uid {peer.uid} is not the user of this server")
            connection.close()
            return False
        if not self._admission.enter(peer.uid):
            self._turn_away(connection, peer, Cause.LIMIT_CONNECTIONS, f"uid {peer.uid} has too many connections")
            return False
        task = self._loop.create_task(self._attest(connection, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _retry(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock.fileno(), self._acceptable)

    async def _attest(self, connection: socket.socket, peer: Peer) -> None:
        seconds = self._attest_seconds()
        try:
            attested = await self._workers.run(
                attest,
                self._kernel,
                connection.fileno(),
                peer,
                self._appraiser(),
                seconds=seconds,
                late=partial(self._late, connection, peer),
                owner=peer.uid,
            )
        except asyncio.CancelledError:  # ``_late`` lets go: the thread still uses the socket
            raise
        except TooSlowError:
            text = f"a file or process of the caller did not answer within {seconds:g} s"
            self._tell(connection, peer, Cause.UNATTESTABLE, text)
            return
        except EvidenceError as error:
            self._leave(peer)
            self._turn_away(connection, peer, error.cause, error.message)
            return
        except OSError as error:
            self._leave(peer)
            self._turn_away(connection, peer, _ours(error), f"cannot collect evidence: {error.strerror}")
            return
        except BaseException:
            self._leave(peer)
            connection.close()
            raise
        self._admission.attested(peer.uid)
        self._open_session(connection, peer, attested, queued_bytes(connection))

    def _late(self, connection: socket.socket, peer: Peer, attested: Attested | None) -> None:
        """An attestation that nobody waits for has ended."""
        self._leave(peer)
        connection.close()
        if attested is not None:
            attested.watch.close()

    def _leave(self, peer: Peer) -> None:
        self._admission.attested(peer.uid)
        self._admission.leave(peer.uid)

    def _turn_away(self, connection: socket.socket, peer: Peer | None, cause: Cause, text: str) -> None:
        self._tell(connection, peer, cause, text)
        connection.close()

    def _tell(self, connection: socket.socket, peer: Peer | None, cause: Cause, text: str) -> None:
        """Refuse in one line and end the stream; the descriptor stays open."""
        self._refused(self._server, peer, cause, text)
        tell(connection, self._server, cause, text, self._dressed)


def tell(
    connection: socket.socket, server: str, cause: Cause, text: str, dressed: Callable[[socket.socket, bytes], bytes]
) -> None:
    """Say in one line why nothing is served, and end the stream; the descriptor stays open."""
    data = {"cause": cause.value, "server": server}
    said = f"attestd refused the connection: {CLAUSES[cause].replace('{caller}', 'the caller')} ({shown(text)})"
    with contextlib.suppress(OSError):  # nobody is there to be told
        connection.send(dressed(connection, error_line(None, REFUSED, said, data)))
        connection.shutdown(socket.SHUT_RDWR)


def _ours(error: OSError) -> Cause:
    """The refusal for a lack of our own: it says nothing about the caller."""
    return Cause.LIMIT_CONNECTIONS if error.errno in EXHAUSTED else Cause.INTERNAL


def listen(path: Path) -> socket.socket:
    """A non-blocking listener at ``path`` that passes credentials.

    Its mode is 0666, because identity is attested and not filtered by mode.

    A stale socket of our own is replaced; one that answers, or that is somebody else's, is a ConfigurationError.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        found = None
    if found is not None:
        if not stat.S_ISSOCK(found.st_mode):
            raise ConfigurationError(
                f"cannot listen on {path}: something that is not a socket is there", hint="move it away"
            )
        if found.st_uid != os.geteuid():
            raise ConfigurationError(
                f"cannot listen on {path}: the socket there belongs to uid {found.st_uid}, not to uid {os.geteuid()}",
                hint="find out who made it before you remove it",
            )
        if _answers(path):
            raise ConfigurationError(
                f"cannot listen on {path}: another process listens there", hint="stop the other attestd first"
            )
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        name_writers(sock)
        before = os.umask(0o111)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"cannot listen on {path}: {error.strerror}", hint="check the directory and its owner"
        ) from error
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the standard library's signature
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True
