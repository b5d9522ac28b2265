"""The real launcher of system mode, as an account of its own with four capabilities, and whoever plays its daemon.

It runs from a copy of its files below ``/run``, because every directory above the registry must be root's, and because
its account may not be able to enter the checkout. For root.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.repository import ROOT

PYTHON = "/usr/bin/python3"
LAUNCHER_UID = 60100
DAEMON_UID = 60101
ALICE = 60102
BOB = 60103
FIRST_ISOLATED = 1900000000
CAPABILITIES = ("setuid", "setgid", "kill", "setpcap")

TELL = """
import json, os, sys
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
print(json.dumps({
    "uids": [int(w) for w in status["Uid"].split()], "gids": [int(w) for w in status["Gid"].split()],
    "groups": [int(w) for w in status["Groups"].split()],
    "capabilities": sorted({status[n] for n in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}),
    "new": status["NoNewPrivs"], "env": dict(os.environ), "fds": sorted(int(n) for n in os.listdir("/proc/self/fd")),
    "argv": sys.argv[1:], "cwd": os.getcwd(), "session": os.getsid(0) == os.getpid(), "pid": os.getpid(),
    "cgroup": open("/proc/self/cgroup").read(),
}), flush=True)
sys.stdin.read()
"""
"""A server that says what it is, and stays until its input ends."""


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
cgroup = os.environ.pop("CGROUP", "")
if cgroup:
    with open(cgroup + "/cgroup.procs", "w") as file: file.write("0")
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""What systemd does with a socket."""


class Started:
    """What somebody who plays the daemon holds of one order."""

    def __init__(self) -> None:
        self.stdin, self.stdout, self.stderr = os.pipe(), os.pipe(), os.pipe()
        self.line, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.settimeout(20)
        self.pid = 0

    @property
    def theirs(self) -> list[int]:
        """The descriptors of an order."""
        return [self.stdin[0], self.stdout[1], self.stderr[1], self.far.fileno()]

    def sent(self) -> None:
        """Our copies of the server's ends are not needed any more."""
        for fd in self.theirs[:3]:
            os.close(fd)
        self.far.close()

    def word(self) -> list[str]:
        """What the line says next; empty at its end."""
        try:
            words = self.line.recv(8192).decode().split("\0")
        except ConnectionError:
            return [""]
        if words[0] == "started":
            self.pid = int(words[1])
        return words

    def told(self) -> dict[str, Any]:
        """One line of JSON from the server."""
        with os.fdopen(os.dup(self.stdout[0]), encoding="utf-8") as file:
            return dict(json.loads(file.readline()))

    def ended(self, seconds: float = 10) -> bool:
        """Whether nothing of the server is left, which the end of the line says."""
        self.line.settimeout(seconds)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while self.line.recv(8192):
                pass
            return True
        return False

    def close(self) -> None:
        """Let go of our ends."""
        self.line.close()
        for fd in (self.stdin[1], self.stdout[0], self.stderr[0]):
            with contextlib.suppress(OSError):
                os.close(fd)


class House:
    """One launcher with its registry."""

    def __init__(self, *, daemon: int = DAEMON_UID) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="at-", dir="/run"))
        self.root.chmod(0o755)
        self.daemon = daemon
        self.registry = self.root / "attestd" / "servers.d"
        self.registry.mkdir(parents=True)
        self.state = self.root / "state"
        self.state.mkdir()
        os.chown(self.state, LAUNCHER_UID, LAUNCHER_UID)
        self.path = self.root / "run" / "attestd-launcher.sock"
        self.path.parent.mkdir()
        self.log = self.root / "log"
        self.notes = self.log.open("wb")
        library = self.root / "lib" / "attestd"
        library.mkdir(parents=True)
        shutil.copy(ROOT / "attestd" / "__init__.py", library)
        (library / "launch").mkdir()
        for file in (ROOT / "attestd" / "launch").glob("*.py"):
            shutil.copy(file, library / "launch")
        self.program = library / "launch" / "system.py"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # PassCredentials=
        self.listener.bind(str(self.path))
        self.listener.listen(64)
        os.chown(self.path, daemon, daemon)
        self.path.chmod(0o600)
        self.process: subprocess.Popen[bytes] | None = None
        self.cgroup: Path | None = None
        """Where the launcher is started; None: where we are."""

    def start(self, *words: str) -> None:
        """As systemd would: the socket as descriptor 3, an account of its own, four capabilities."""
        every = ",".join(f"+{name}" for name in CAPABILITIES)
        command = [
            *("setpriv", f"--reuid={LAUNCHER_UID}", f"--regid={LAUNCHER_UID}", "--clear-groups"),
            *(f"--bounding-set=-all,{every}", f"--inh-caps=-all,{every}", f"--ambient-caps={every}", "--"),
            *(PYTHON, "-I", "-S", str(self.program), "--daemon", str(self.daemon)),
            *("--registry", str(self.registry), "--state", str(self.state), *words),
        ]
        self.process = subprocess.Popen(
            [PYTHON, "-I", "-c", ACTIVATE, str(self.listener.fileno()), *command],
            pass_fds=(self.listener.fileno(),),
            stderr=self.notes,
            cwd="/",
            env={"PATH": os.environ["PATH"], "SECRET": "of the launcher", "CGROUP": str(self.cgroup or "")},
        )

    def end(self) -> None:
        """End the launcher."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def stop(self) -> None:
        """End the launcher and remove everything."""
        self.end()
        self.listener.close()
        self.notes.close()
        shutil.rmtree(self.root)

    def write(self, name: str, text: str) -> Path:
        """A file of the registry."""
        path = self.registry / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        return path

    def register(self, name: str, source: str = TELL, *words: str, **keys: Any) -> Path:
        """A server that is a Python program."""
        command = [PYTHON, "-I", "-c", source, *words]
        limits = keys.pop("limits", {})
        lines = ["[server]", f'name = "{name}"', 'transport = "stdio"', f"command = {json.dumps(command)}"]
        for key, value in {"env": {}, **keys}.items():
            if isinstance(value, dict):
                lines.append(f"{key} = {{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }")
            else:
                lines.append(f"{key} = {json.dumps(value)}")
        lines += ["[server.limits]", *(f"{key} = {value}" for key, value in limits.items())]
        return self.write(name, "\n".join(lines) + "\n")

    def connect(self) -> socket.socket:
        """A connection of whoever we are now."""
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.settimeout(20)
        try:
            control.connect(str(self.path))
        except OSError:
            control.close()
            raise
        return control

    def noted(self, text: str, seconds: float = 10) -> bool:
        """Whether the launcher's log says this."""
        deadline = time.monotonic() + seconds
        while text not in self.log.read_text(encoding="utf-8"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@contextlib.contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """This process is somebody else, for the kernel's credentials too, and can come back."""
    os.setresgid(uid, uid, 0)
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)


def send(control: socket.socket, message: bytes, fds: Sequence[int]) -> None:
    """One datagram with descriptors."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    control.sendmsg([message], rights)


@contextlib.contextmanager
def client(uid: int, *, groups: Sequence[int] = (), command: Sequence[str] = ("sleep", "1000")) -> Iterator[int]:
    """A live process of some account; a pidfd of it."""
    words = ["setpriv", f"--reuid={uid}", f"--regid={uid}"]
    words.append(f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups")
    with subprocess.Popen([*words, "--", *command]) as process:
        _executed(process.pid, command[0])
        fd = os.pidfd_open(process.pid)
        try:
            yield fd
        finally:
            os.close(fd)
            process.kill()


def _executed(pid: int, program: str) -> None:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/comm").read_text().strip() != Path(program).name[:15]:
        if time.monotonic() > deadline:
            raise TimeoutError(program)
        time.sleep(0.005)


class Daemon:
    """Somebody with the daemon's uid and one connection."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.orders: list[Started] = []
        with acting_as(house.daemon):
            self.control = house.connect()

    def order(self, name: str, *clients: int, message: bytes | None = None) -> Started:
        """An order, well formed unless ``message`` is not."""
        started = Started()
        self.orders.append(started)
        with acting_as(self.house.daemon):
            send(self.control, message or b"start\0" + name.encode(), [*started.theirs, *clients])
        started.sent()
        return started

    def cut_off(self) -> bool:
        """Whether the launcher has ended the connection."""
        try:
            return self.control.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        """Hang up."""
        self.control.close()
        for order in self.orders:
            order.close()


@contextlib.contextmanager
def house(*words: str, daemon: int = DAEMON_UID) -> Iterator[House]:
    """A running launcher."""
    made = House(daemon=daemon)
    try:
        made.start(*words)
        yield made
    finally:
        made.stop()
