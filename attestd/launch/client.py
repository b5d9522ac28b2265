"""The daemon's side of a launcher: orders with the far ends of a server's pipes, and what was started with them.

Rules
- In user mode the launcher is our child. It is started from the thread that runs the loop (its parent-death signal
  follows that thread), and again by the next ``start`` after it has died; its servers die with it.
- The rules of ``starting``.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from attestd.launch.find import find_program
from attestd.launch.protocol import Command, LaunchError
from attestd.launch.server import ServerProcess
from attestd.launch.starting import START_TIMEOUT_S, Starter, encode

if sys.platform != "linux":
    raise ImportError("cannot launch servers on this platform: the launcher needs Linux")


class LauncherClient(Starter):
    """What both launchers have in common: a control socket."""

    def __init__(self, *, grace_s: float = 2.0) -> None:
        super().__init__(grace_s=grace_s)
        self._control: socket.socket | None = None

    @abstractmethod
    def _connected(self) -> socket.socket:
        """The control socket of a launcher that runs, kept in ``_control``. Raises OSError, LaunchError."""

    @abstractmethod
    def _drop(self) -> None:
        """Forget a launcher that died."""

    def _hang_up(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    async def _order(
        self, file: str, order: bytes, on_exit: Callable[[str], None], client: int | None
    ) -> ServerProcess:
        """Make the pipes and hand their other ends to the launcher."""
        try:
            with ExitStack() as ours, ExitStack() as theirs:
                pipes = self._pipes(ours, theirs)
                line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                theirs.callback(far.close)
                ours.callback(line.close)
                os.set_blocking(line.fileno(), False)
                named = () if client is None else (client,)
                await self._send(order, (*pipes.theirs, far.fileno(), *named))
                server = ServerProcess(
                    file=file, line=line, fds=pipes.ours, on_exit=on_exit, on_gone=self._servers.discard
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
        self._hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def _ended(self) -> None:
        self._hang_up()
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


async def _writable(control: socket.socket) -> None:
    """Wait until the launcher has taken an earlier order."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(control.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(control.fileno())
