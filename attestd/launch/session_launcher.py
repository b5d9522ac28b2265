"""Starting servers where the kernel ties no process to its parent: one supervisor for each, which leads their session.

This is the launcher of macOS (docs/macos.md has what is weaker); nothing in it is of one operating system.

Rules
- The rules of ``starting``.
- What a server shall do without and this launcher cannot take away is an error of the start, never left out.
- A supervisor that ended is reaped only after its group was killed: until then nobody else can have its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from attestd.launch.find import find_program
from attestd.launch.frames import Frames, framed
from attestd.launch.protocol import Command, LaunchError, Sandbox
from attestd.launch.server import ServerProcess
from attestd.launch.starting import Pipes, Starter, encode
from attestd.launch.supervise import RLIMITS


class SessionLauncher(Starter):
    """Implements ``Launcher`` with a child process for each server."""

    def __init__(self, *, grace_s: float = 2.0) -> None:
        super().__init__(grace_s=grace_s)
        self._supervisors: dict[ServerProcess, subprocess.Popen[bytes]] = {}

    @property
    def supervisors(self) -> tuple[int, ...]:
        """Their pids."""
        return tuple(process.pid for process in self._supervisors.values())

    def _ordered(self, command: Command) -> tuple[str, bytes]:
        file = find_program(command)
        refuse_what_cannot_be_taken(file, command.sandbox)
        return file, encode(command, file, self._grace_s)

    async def _order(
        self, file: str, order: bytes, on_exit: Callable[[str], None], client: int | None
    ) -> ServerProcess:
        """Start a supervisor and tell it what to start; ``client`` is of no use here: everybody is the same user."""
        del client
        try:
            with ExitStack() as ours, ExitStack() as theirs:
                pipes = self._pipes(ours, theirs)
                line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                theirs.callback(far.close)
                ours.callback(line.close)
                line.setblocking(False)  # noqa: FBT003 - the standard library's signature
                supervisor = _spawn(far.fileno(), pipes)
                ours.callback(_end, supervisor)
                theirs.close()
                await asyncio.get_running_loop().sock_sendall(line, framed(order))
                server = ServerProcess(
                    file=file, line=Frames(line), fds=pipes.ours, on_exit=on_exit, on_gone=self._gone
                )
                ours.pop_all()
        except OSError as error:
            raise LaunchError(f"cannot start {file}: {(error.strerror or str(error)).lower()}") from error
        self._servers.add(server)
        self._supervisors[server] = supervisor
        return server

    def _gone(self, server: ServerProcess) -> None:
        """The line is closed: by the supervisor's end, or by us, without grace."""
        self._servers.discard(server)
        supervisor = self._supervisors.pop(server, None)
        if supervisor is not None:
            _end(supervisor)

    async def _ended(self) -> None:
        """Nothing is left: each supervisor was reaped when its line closed."""


def _end(supervisor: subprocess.Popen[bytes]) -> None:
    """Kill its whole group, itself included, then reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of the dead
        os.killpg(supervisor.pid, signal.SIGKILL)
    supervisor.wait()


def refuse_what_cannot_be_taken(file: str, sandbox: Sandbox) -> None:
    """Raises LaunchError for everything of ``sandbox`` that no interface of macOS enforces."""
    limits = [f"limits.{name}" for name, _ in sandbox.limits if name.encode() not in RLIMITS]
    named = (*(() if sandbox.network else ("network",)), *(("read_only",) if sandbox.read_only else ()), *limits)
    if named:
        raise LaunchError(
            f"cannot start {file}: cannot enforce {', '.join(named)} of its server file on this platform",
            hint="leave it out, or confine the server yourself, for example in a virtual machine",
        )


def _spawn(line: int, pipes: Pipes) -> subprocess.Popen[bytes]:
    """A supervisor: isolated interpreter, empty environment, own session; open are the server's ends and its line."""
    program = str(Path(__file__).with_name("supervise.py"))
    stdin, stdout, stderr = pipes.theirs
    return subprocess.Popen(  # noqa: S603 - our own interpreter and our own file
        [sys.executable, "-I", "-S", program, str(line)],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=(line,),
        env={},
        cwd="/",
        start_new_session=True,
    )


class NoLauncher:
    """Implements ``Launcher`` where servers cannot be started: each start is refused with the reason."""

    def __init__(self, why: str, hint: str) -> None:
        self._why = why
        self._hint = hint

    async def start(self, command: Command, on_exit: Callable[[str], None], client: int | None = None) -> ServerProcess:
        """Raises LaunchError."""
        del on_exit, client
        raise LaunchError(f"cannot start {command.name or command.argv[0]}: {self._why}", hint=self._hint)

    async def close(self) -> None:
        """Nothing was started."""
