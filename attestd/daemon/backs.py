"""Opening back ends: a started process with its pipes, or a Unix socket with an attested listener.

attestd attests the server too. A started child's image is read once it runs; on a Unix socket the kernel names the
process that listens. A stranger (wrong uid, wrong program) gets not one byte.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from attestd.appraisal.digests import program_digest
from attestd.daemon.config import ServerSettings
from attestd.daemon.stdio_settings import sandbox
from attestd.enforcement.link import ServerError
from attestd.enforcement.workers import NOBODY, TooSlowError, Workers
from attestd.errors import AttestdError, Cause, EvidenceError
from attestd.evidence.model import Evidence
from attestd.evidence.protocol import Collected, Kernel
from attestd.launch.protocol import Backend, Command, Launcher

T = TypeVar("T")
CONNECT_S = 5.0
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ServerImage(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the program behind a back end."""

    pid: int
    uid: int
    path: str
    sha256: str | None
    digest: str = ""
    """Program digest."""
    program: str = ""
    """Script or module that an interpreter runs, with its digest."""

    @property
    def describe(self) -> str:
        """For the audit log and ``servers show``."""
        return f"pid {self.pid} uid {self.uid} {self.path} sha256 {self.sha256 or 'unreadable'}{self.program}"


class StdioBack:
    """A started server."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._backend: Backend | None = None
        self._exit = ""
        self.read_fd = -1
        self.write_fd = -1
        self.describe = ""

    async def start(self, launcher: Launcher, client: int | None = None) -> int:
        """Start it; the pid. Raises AttestdError."""
        self._backend = await launcher.start(self._command, self._exited, client)
        self.read_fd = self._backend.stdout_fd
        self.write_fd = self._backend.stdin_fd
        return self._backend.pid

    def finish(self) -> None:
        """No more requests."""
        if self._backend is not None:
            self._backend.finish()

    def stop(self) -> None:
        """End it."""
        if self._backend is not None:
            backend, self._backend = self._backend, None
            backend.stop()

    def failure(self) -> str:
        """Why it ended, as far as known."""
        tail = self._backend.stderr_tail() if self._backend is not None else ""
        last = tail.strip().splitlines()[-1:] or [""]
        said = f": {last[0][:200]}" if last[0] else ""
        return f"the server {self._exit or 'closed its output'}{said}"

    def _exited(self, text: str) -> None:
        self._exit = text


class UnixBack:
    """A connection to a server that listens on a Unix socket."""

    def __init__(self, sock: socket.socket, describe: str) -> None:
        self._sock = sock
        self.read_fd = sock.fileno()
        self.write_fd = self.read_fd
        self.describe = describe

    def finish(self) -> None:
        """No more requests."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it has closed already

    def stop(self) -> None:
        """Close the connection."""
        self._sock.close()

    def failure(self) -> str:
        """Why it ended, as far as known."""
        return "the server closed the connection"


class Backs:
    """Opens back ends and says who they are."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        launcher: Launcher,
        kernel: Kernel,
        workers: Workers,
        attest_seconds: Callable[[], float],
        seen: Callable[[str, ServerImage], None],
    ) -> None:
        """``seen(server, image)`` is told of every attested back end before a byte is passed; it may raise."""
        self._loop = loop
        self._launcher = launcher
        self.kernel = kernel
        self._workers = workers
        self._attest_seconds = attest_seconds
        self.seen = seen

    async def open(self, server: ServerSettings, client: int | None = None) -> StdioBack | UnixBack:
        """An opened and attested back end; ``client``: pidfd of who it is for. Raises ServerError."""
        return await (self._stdio(server, client) if server.transport == "stdio" else self._unix(server))

    async def _stdio(self, server: ServerSettings, client: int | None) -> StdioBack:
        back = StdioBack(
            Command(
                argv=server.command,
                env=environment(server),
                cwd=server.cwd,
                name=server.name,
                sandbox=sandbox(server),
            )
        )
        try:
            pid = await back.start(self._launcher, client)
            evidence = await self._collect(partial(self.kernel.collect_pid, pid))
            image = self.examined(server, evidence)
            back.describe = image.describe
            self.seen(server.name, image)
        except ServerError:
            back.stop()
            raise
        except EvidenceError as error:
            text = back.failure() if error.cause is Cause.PEER_GONE else error.message
            back.stop()
            raise ServerError(Cause.SERVER_UNAVAILABLE, f"server {server.name!r} did not stay: {text}") from error
        except AttestdError as error:
            raise ServerError(
                Cause.SERVER_UNAVAILABLE, f"cannot start server {server.name!r}: {error.message}", hint=error.hint
            ) from error
        except BaseException:
            back.stop()
            raise
        return back

    async def _unix(self, server: ServerSettings) -> UnixBack:
        sock, image = await self.connect_unix(server, known=None)
        return UnixBack(sock, image.describe)

    async def connect_unix(
        self, server: ServerSettings, *, known: ServerImage | None
    ) -> tuple[socket.socket, ServerImage]:
        """A connection to an attested listener. One that is ``known`` is not told again. Raises ServerError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        try:
            await asyncio.wait_for(self._loop.sock_connect(sock, server.socket), CONNECT_S)
            peer = self.kernel.peer(sock.fileno())
            demand_uid(server, peer.uid, server.socket)
            held = sock.dup()  # what hangs keeps a socket of its own
            evidence = await self._collect(partial(self.kernel.collect, held.fileno(), peer), held.close, peer.uid)
            image = self.examined(server, evidence)
            if image != known:
                self.seen(server.name, image)
        except ServerError:
            sock.close()
            raise
        except EvidenceError as error:
            sock.close()
            raise ServerError(
                Cause.SERVER_UNTRUSTED, f"cannot attest the server on {server.socket}: {error.message}"
            ) from error
        except (OSError, TimeoutError) as error:
            sock.close()
            raise _unreached(server, error) from error
        except BaseException:
            sock.close()
            raise
        return sock, image

    async def _collect(
        self, collect: Callable[[], Collected], release: Callable[[], None] = lambda: None, owner: int = NOBODY
    ) -> Evidence:
        def late(collected: Collected | None) -> None:
            release()
            if collected is not None:
                collected.watch.close()

        collected = await self.work(collect, late, owner)
        late(collected)
        return collected.evidence

    async def work(self, look: Callable[[], T], late: Callable[[T | None], None], owner: int = NOBODY) -> T:
        """What a worker thread finds out about a server; ``late`` is called instead if nobody waits any more.

        ``owner``: the uid that the server runs as, where that is known already.

        Raises ServerError if it takes too long, and what ``look`` raises.
        """
        seconds = self._attest_seconds()
        try:
            return await self._workers.run(look, seconds=seconds, late=late, owner=owner)
        except asyncio.CancelledError:  # ``late`` lets go
            raise
        except TooSlowError as error:
            text = f"a file or process of the server did not answer within {seconds:g} s"
            raise ServerError(Cause.SERVER_UNAVAILABLE, text) from error
        except BaseException:
            late(None)
            raise

    def examined(self, server: ServerSettings, evidence: Evidence) -> ServerImage:
        """Who the server is, if the registry accepts it. Raises ServerError."""
        link = evidence.chain[0]
        script = link.script
        image = ServerImage(
            pid=link.pid,
            uid=link.uids[1],
            path=link.exe.path if link.exe is not None else "unreadable",
            sha256=link.exe.sha256 if link.exe is not None else None,
            digest=program_digest(link),
            program=f" {script.kind} {script.name} sha256 {script.sha256}" if script is not None else "",
        )
        wanted = server.peer.exe_sha256
        if wanted is not None and image.sha256 != wanted:
            text = f"server {server.name!r} runs sha256 {image.sha256 or 'unreadable'}, expected {wanted}"
            raise ServerError(Cause.SERVER_UNTRUSTED, text)
        named = server.peer.program
        if named is not None and image.digest != named:
            text = f"server {server.name!r} is {image.describe}: program {image.digest}, expected {named}"
            raise ServerError(Cause.SERVER_UNTRUSTED, text)
        return image


def demand_uid(server: ServerSettings, uid: int, place: str) -> None:
    """Refuse a server of another user than the registry expects. Raises ServerError."""
    expected = {server.peer.uid} if server.peer.uid is not None else {os.geteuid(), 0}
    if uid not in expected:
        wanted = " or ".join(str(each) for each in sorted(expected))
        text = f"uid {uid} listens on {place}, expected uid {wanted}"
        raise ServerError(Cause.SERVER_UNTRUSTED, text, hint="set server.peer.uid if that is right")


def _unreached(server: ServerSettings, error: OSError | TimeoutError) -> ServerError:
    """Nobody answers, or nobody that we may see: another user's socket may be there all the same."""
    reason = error.strerror or "it does not accept"
    text, hint = f"cannot connect to {server.socket}: {reason}", ""
    if isinstance(error, FileNotFoundError | PermissionError) and server.peer.uid not in {None, os.geteuid()}:
        text = f"{text}, as attestd (uid {os.geteuid()}) sees it"
        hint = "the service's unit hides /home, /root, /run/user and /tmp; who may write a socket may connect to it"
    return ServerError(Cause.SERVER_UNAVAILABLE, text, hint=hint)


def environment(server: ServerSettings) -> tuple[tuple[str, str], ...]:
    """The whole environment of a started server: who it is and where programs are, then what its file says.

    Nothing of the daemon's or the caller's environment is inherited.
    """
    try:
        entry = pwd.getpwuid(os.getuid())
        home, name = entry.pw_dir, entry.pw_name
    except KeyError:
        home, name = "/", str(os.getuid())
    values = {"PATH": BASE_PATH, "HOME": home, "USER": name, "LOGNAME": name, "LANG": "C.UTF-8", **server.env}
    return tuple(values.items())
