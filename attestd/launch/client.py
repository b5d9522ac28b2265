"""The daemon's side of a launcher: orders with the far ends of a server's pipes, and what was started with them.

Rules
- In user mode the launcher is our child. It is started from the thread that runs the loop (its parent-death signal
  follows that thread), and again by the next ``start`` after it has died; its servers die with it.
- Whatever fails or is cancelled between the first pipe and ``started``, every descriptor is closed: the server ends.
- Only our ends of the pipes are non-blocking. They are large while all of them together stay below ``LARGE_BYTES``: the
  kernel's per-user allowance is shared with everything else that the user runs.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from attestd.launch.find import find_program
from attestd.launch.protocol import Command, LaunchError
from attestd.launch.server import ServerProcess

if sys.platform != "linux":
    raise ImportError("cannot launch servers on this platform: the launcher needs Linux")

PIPE_BYTES = 1 << 20
LARGE_BYTES = 16 << 20
ORDER_BYTES = 128 << 10
START_TIMEOUT_S = 10.0
STARTS_AT_ONCE = 8
F_SETPIPE_SZ = 1031


class LauncherClient(ABC):
    """What both launchers have in common; belongs to one running loop."""

    def __init__(self, *, grace_s: float = 2.0) -> None:
        self._grace_s = grace_s
        self._control: socket.socket | None = None
        self._servers: set[ServerProcess] = set()
        self._gate = asyncio.Semaphore(STARTS_AT_ONCE)
        self._closed = False

    async def start(self, command: Command, on_exit: Callable[[str], None], client: int | None = None) -> ServerProcess:
        """Start one server; returns when it has executed its program. Raises LaunchError with file and reason."""
        file, order = self._ordered(command)
        async with self._gate:
            if self._closed:
                raise LaunchError(f"cannot start {file}: the launcher is closed")
            server = await self._order(file, order, on_exit, client)
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await server.started
            except TimeoutError:
                server.abandon()
                raise LaunchError(f"cannot start {file}: not executed within {START_TIMEOUT_S:g} s") from None
            except BaseException:
                server.abandon()
                raise
        asyncio.get_running_loop().call_soon(server.handed_over)
        return server

    async def close(self) -> None:
        """Stop every server with its grace, then end the launcher. Returns when no descendant is left."""
        self._closed = True
        servers = tuple(self._servers)
        for server in servers:
            server.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * self._grace_s + 2):
                for server in servers:
                    await server.gone.wait()
        for server in tuple(self._servers):
            server.abandon()
        if self._control is not None:
            self._control.close()
            self._control = None
        await self._ended()

    @abstractmethod
    def _ordered(self, command: Command) -> tuple[str, bytes]:
        """What the server is called in errors, and the order. Raises LaunchError."""

    @abstractmethod
    def _connected(self) -> socket.socket:
        """The control socket of a launcher that runs, kept in ``_control``. Raises OSError, LaunchError."""

    @abstractmethod
    def _drop(self) -> None:
        """Forget a launcher that died."""

    @abstractmethod
    async def _ended(self) -> None:
        """The control socket is closed: wait until the launcher has ended what it had."""

    async def _order(
        self, file: str, order: bytes, on_exit: Callable[[str], None], client: int | None
    ) -> ServerProcess:
        """Make the pipes and hand their other ends to the launcher."""
        try:
            with ExitStack() as ours, ExitStack() as theirs:
                stdin, stdin_fd = _pipe(theirs, ours, large=self._room())
                stdout_fd, stdout = _pipe(ours, theirs, large=self._room())
                stderr_fd, stderr = _pipe(ours, theirs, large=False)
                line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                theirs.callback(far.close)
                ours.callback(line.close)
                for fd in (stdin_fd, stdout_fd, stderr_fd, line.fileno()):
                    os.set_blocking(fd, False)
                named = () if client is None else (client,)
                await self._send(order, (stdin, stdout, stderr, far.fileno(), *named))
                server = ServerProcess(
                    file=file,
                    line=line,
                    stdin_fd=stdin_fd,
                    stdout_fd=stdout_fd,
                    stderr_fd=stderr_fd,
                    on_exit=on_exit,
                    on_gone=self._servers.discard,
                )
                ours.pop_all()
        except OSError as error:
            raise LaunchError(f"cannot start {file}: {(error.strerror or str(error)).lower()}") from error
        self._servers.add(server)
        return server

    async def _send(self, order: bytes, fds: tuple[int, ...]) -> None:
        """Send to the launcher, starting it if it is not there; once more if it died just now."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        for attempt in (1, 2):
            control = self._connected()
            try:
                while True:
                    try:
                        control.sendmsg([order], rights)
                    except BlockingIOError:
                        await _writable(control)
                    else:
                        return
            except (BrokenPipeError, ConnectionResetError):
                self._drop()
                if attempt == 2:
                    raise

    def _room(self) -> bool:
        return 2 * PIPE_BYTES * len(self._servers) < LARGE_BYTES


class ProcessLauncher(LauncherClient):
    """Implements ``Launcher`` with one child process."""

    def __init__(self, *, grace_s: float = 2.0) -> None:
        super().__init__(grace_s=grace_s)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The launcher's process, if it runs."""
        return None if self._process is None else self._process.pid

    def _ordered(self, command: Command) -> tuple[str, bytes]:
        file = find_program(command)
        return file, encode(command, file, self._grace_s)

    def _connected(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._drop()
        if self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                try:
                    self._process = _spawn(theirs.fileno())
                except OSError:
                    ours.close()
                    raise
            ours.setblocking(False)  # noqa: FBT003 - the signature of the standard library
            self._control = ours
        return self._control

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def _ended(self) -> None:
        if self._process is not None:
            await _end(self._process)
            self._process = None


async def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the launcher, which ends when its control socket closes; kill it if it does not."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    fd = os.pidfd_open(process.pid)
    loop.add_reader(fd, ended.set)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            await ended.wait()
    except TimeoutError:
        process.kill()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    process.wait()


def encode(command: Command, file: str, grace_s: float) -> bytes:
    """The order as the launcher reads it. Raises LaunchError for what no process can be given."""
    sandbox = command.sandbox.words()
    words = [str(round(grace_s * 1000)), file, command.cwd, str(len(command.argv)), *command.argv]
    words += [str(len(sandbox)), *sandbox]
    for name, value in command.env:
        if not name or "=" in name:
            raise LaunchError(f"cannot start {file}: cannot set an environment variable named {name!r}")
        words.append(f"{name}={value}")
    if any("\0" in word for word in words):
        raise LaunchError(f"cannot start {file}: an argument or environment variable contains a NUL character")
    order = os.fsencode("\0".join(words))
    if len(order) > ORDER_BYTES:
        raise LaunchError(
            f"cannot start {file}: its arguments and environment are {len(order)} bytes, at most {ORDER_BYTES}"
        )
    return order


def _spawn(control_fd: int) -> subprocess.Popen[bytes]:
    """The launcher: isolated interpreter, empty environment, own session, nothing open but the control socket."""
    program = str(Path(__file__).with_name("program.py"))
    return subprocess.Popen(  # noqa: S603 - our own interpreter and our own file
        [sys.executable, "-I", "-S", program, str(control_fd), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(control_fd,),
        env={},
        cwd="/",
        start_new_session=True,
    )


def _pipe(reader: ExitStack, writer: ExitStack, *, large: bool) -> tuple[int, int]:
    """A pipe whose ends are closed by the two stacks."""
    read_fd, write_fd = os.pipe()
    reader.callback(os.close, read_fd)
    writer.callback(os.close, write_fd)
    if large:
        with contextlib.suppress(OSError):
            fcntl.fcntl(write_fd, F_SETPIPE_SZ, PIPE_BYTES)
    return read_fd, write_fd


async def _writable(control: socket.socket) -> None:
    """Wait until the launcher has taken an earlier order."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(control.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(control.fileno())
