"""Real processes that fork, execute, connect and exit when they are told to; the parents of a test of lineage.

Every puppet has a connection of its own to the test, and ends when that is closed, also when its parent has gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

TICK_NS = 10_000_000
_CODE = """
import os, signal, socket, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
path, fd = sys.argv[1], int(sys.argv[2])
held = []
def fresh():
    s = socket.socket(socket.AF_UNIX); s.connect(path); s.set_inheritable(True); return s
s = socket.socket(fileno=fd) if fd >= 0 else fresh()
s.sendall(b'%d\\n' % os.getpid())
while True:
    line = b''
    while not line.endswith(b'\\n'):
        part = s.recv(1)
        if not part: os._exit(0)
        line += part
    word, *rest = line.decode().split()
    if word == 'fork':
        if rest:
            with open('/proc/sys/kernel/ns_last_pid', 'w') as last: last.write(str(int(rest[0]) - 1))
        if os.fork() == 0:
            s.close(); s = fresh(); s.sendall(b'%d\\n' % os.getpid())
        continue
    if word == 'forks':
        for _ in range(int(rest[0])):
            pid = os.fork()
            if pid == 0: os._exit(0)
            try: os.waitpid(pid, 0)
            except ChildProcessError: pass
    if word == 'exec':
        os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', sys.argv[3], path, str(s.fileno()), sys.argv[3]])
    if word == 'exit': os._exit(0)
    if word == 'thread':
        import threading
        t = threading.Thread(target=int); t.start(); t.join()
    if word == 'connect':
        c = socket.create_connection((rest[0], int(rest[1]))); c.set_inheritable(True); held.append(c)
    s.sendall(b'done\\n')
"""


class Puppet:
    """One process; ``start_ns`` as /proc shows it."""

    def __init__(self, stage: Stage, door: socket.socket, pid: int) -> None:
        self._stage = stage
        self._door = door
        self.pid = pid
        self.ended = False
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        self.start_ns = int(fields[19]) * TICK_NS

    def fork(self, pid: int | None = None) -> Puppet:
        """A child; with ``pid``, root's puppet tries to make it use that pid, which others may be quicker to take."""
        self._door.sendall(b"fork\n" if pid is None else b"fork %d\n" % pid)
        return self._stage.entered()

    def tell(self, words: str) -> None:
        """Do something and say so: ``connect HOST PORT``, ``thread``, ``forks N``."""
        self._door.sendall(words.encode() + b"\n")
        assert self._line() == "done"

    def execute(self) -> None:
        """Execute Python again."""
        self._door.sendall(b"exec\n")
        assert self._line() == str(self.pid)

    def exit(self) -> None:
        """End, and be waited for by the kernel or init."""
        pidfd = os.pidfd_open(self.pid)
        self._door.sendall(b"exit\n")
        select.select([pidfd], [], [], 10)
        os.close(pidfd)
        self.ended = True
        self.close()

    def close(self) -> None:
        """Let go: it ends by itself."""
        self._door.close()

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            part = self._door.recv(1)
            assert part, f"puppet {self.pid} has ended"
            line += part
        return line.decode().strip()


class Stage:
    """Where puppets come from. Leaving it ends them all."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="at-", dir="/tmp")
        self._path = f"{self._directory.name}/s"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen(64)
        self._listener.settimeout(20)
        self._puppets: list[Puppet] = []
        self._children: list[subprocess.Popen[bytes]] = []

    def enter(self, uid: int | None = None) -> Puppet:
        """A puppet that is our own child."""
        os.chmod(self._directory.name, 0o755)  # noqa: PTH101 - other users' puppets connect too
        os.chmod(self._path, 0o777)  # noqa: PTH101
        argv = [sys.executable, "-I", "-S", "-c", _CODE, self._path, "-1", _CODE]
        child = subprocess.Popen(argv, user=uid, stdin=subprocess.DEVNULL)
        self._children.append(child)
        return self.entered()

    def entered(self) -> Puppet:
        """The next puppet that connects."""
        door, _ = self._listener.accept()
        door.settimeout(20)
        line = b""
        while not line.endswith(b"\n"):
            line += door.recv(1)
        puppet = Puppet(self, door, int(line))
        self._puppets.append(puppet)
        return puppet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pidfds = []
        for puppet in self._puppets:
            if not puppet.ended:
                with contextlib.suppress(OSError):
                    pidfds.append(os.pidfd_open(puppet.pid))
        for puppet in self._puppets:
            puppet.close()
        for child in self._children:
            child.wait(20)
        for pidfd in pidfds:
            select.select([pidfd], [], [], 1)
            os.close(pidfd)
        self._listener.close()
        self._directory.cleanup()
