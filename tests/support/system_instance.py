"""A system installation for tests: the real paths, an attestd of its own user, several ordinary users, and polkit.

Everything runs in one mount namespace that nobody else sees: ``/run`` is empty there, ``/etc``, ``/var/lib`` and polkit's
actions are overlays, so ``attestd run`` uses the paths that it always uses and nothing of the machine is touched. Root
makes it. dbus-daemon and polkitd are Debian's own; passwords are checked by PAM.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.support.instance import ECHO, SETTLE_S, START_S, TALK, Client
from tests.support.instance import SCRIPTS as BUILT
from tests.support.repository import ROOT

SERVICE = 990
ALICE, BOB, CAROL = 60011, 60012, 60013
NAMES = {SERVICE: "attestd", ALICE: "alice", BOB: "bob", CAROL: "carol"}
PASSWORDS = {ALICE: "alice has one", BOB: "bob has another", CAROL: "carol may more"}
ADMINS = {CAROL}
CAPABILITIES = "+sys_ptrace,+dac_read_search"
SCRIPTS = Path("/run/code/venv/bin")
PYTHON = SCRIPTS / "python3"
"""The same interpreter and the same code as this process runs, at a place that every user can reach."""
BUS = Path("/run/dbus/system_bus_socket")

FURNISH = """\
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs /run
over() { mkdir -p /run/.over/$1/up /run/.over/$1/work
         mount -t overlay -o lowerdir=$2,upperdir=/run/.over/$1/up,workdir=/run/.over/$1/work overlay $2; }
chmod 0700 /run/.over 2>/dev/null || mkdir -m 0700 /run/.over
over etc /etc
over lib /var/lib
over actions /usr/share/polkit-1/actions
cat "$1/passwd" >> /etc/passwd
cat "$1/group" >> /etc/group
cat "$1/shadow" >> /etc/shadow
sed -i -E 's/^(sudo:x:[0-9]+:).*/\\1carol/' /etc/group
mkdir -p /run/code/python /run/code/src /run/code/site /run/code/venv/bin
mount --bind "$2" /run/code/src
mount --bind "$3" /run/code/python
mount --bind "$4" /run/code/site
cp "$1"/scripts/* /run/code/venv/bin/
ln -s "/run/code/python/bin/$5" /run/code/venv/bin/python3
printf 'home = /run/code/python/bin\n' > /run/code/venv/pyvenv.cfg
mkdir -p "/run/code/venv/lib/$5/site-packages"
printf '/run/code/src\n/run/code/site\n' > "/run/code/venv/lib/$5/site-packages/attestd.pth"
cp "$2/packaging/polkit/dev.attestd.policy" /usr/share/polkit-1/actions/
mkdir -p /run/dbus /run/user /run/lock /etc/attestd /var/lib/attestd
mount -t tmpfs -o mode=0755 tmpfs /etc/attestd
mount -t tmpfs -o mode=0700,uid=990,gid=990 tmpfs /var/lib/attestd
mkdir /etc/attestd/servers.d
install -d -o attestd -g attestd -m 0755 /run/attestd
echo ready
exec sleep infinity
"""

SERVE = '''\
"""Serve the echo server on a Unix socket, one process for each connection. {mark}"""
import os, signal, socket, subprocess, sys

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
listener.listen(64)
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    with connection:
        subprocess.Popen(sys.argv[2:], stdin=connection, stdout=connection)
'''


class SystemInstance:
    """One namespace and what runs in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.chmod(0o755)
        self.calls = root / "calls"
        self.calls.touch()
        self.calls.chmod(0o666)
        self._started: list[subprocess.Popen[bytes]] = []
        self.daemon: subprocess.Popen[bytes] | None = None
        self._holder = self._furnished()

    # -- the namespace ----------------------------------------------------------------------------------------------

    def _furnished(self) -> subprocess.Popen[bytes]:
        users = [f"{name}:x:{uid}:{uid}::{self.root}:/bin/bash" for uid, name in NAMES.items()]
        groups = [f"{name}:x:{uid}:" for uid, name in NAMES.items()]
        shadow = [f"{NAMES[uid]}:{hashed(word)}:19000:0:99999:7:::" for uid, word in PASSWORDS.items()]
        for name, lines in (("passwd", users), ("group", groups), ("shadow", shadow)):
            (self.root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.root / "shadow").chmod(0o600)
        (self.root / "scripts").mkdir()
        for program in ("attestd", "attestctl", "attestd-connect"):
            first, _, rest = (BUILT / program).read_text(encoding="utf-8").partition("\n")
            script = self.root / "scripts" / program
            flags = first.partition(" ")[2]
            script.write_text(f"#!{PYTHON} {flags}".rstrip() + "\n" + rest, encoding="utf-8")
            script.chmod(0o755)
        furnish = self.root / "furnish"
        furnish.write_text(FURNISH, encoding="utf-8")
        log = (self.root / "furnish.log").open("wb")
        holder = subprocess.Popen(
            [
                *("unshare", "--mount", "bash", str(furnish), str(self.root), str(ROOT)),
                *(sys.base_prefix, sysconfig.get_path("purelib"), f"python{sys.version_info[0]}.{sys.version_info[1]}"),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        log.close()
        assert holder.stdout is not None
        said = holder.stdout.readline()
        assert said == b"ready\n", (self.root / "furnish.log").read_text(encoding="utf-8")
        return holder

    def inside(self, *words: str | Path, uid: int = 0, caps: str = "") -> list[str]:
        """A command line that runs in the namespace as this uid."""
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--wd={self.root}", "--"]
        drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        keep = [f"--inh-caps={caps}", f"--ambient-caps={caps}", f"--bounding-set=-all,{caps}"] if caps else []
        return [*enter, *drop, *keep, *(["--"] if drop else []), *map(str, words)]

    def environment(self, uid: int = 0) -> dict[str, str]:
        """As a login would make it; there is no runtime directory, so the system's socket is the one that is found."""
        return {
            "PATH": f"{SCRIPTS}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.root),
            "USER": NAMES.get(uid, "root"),
            "SHELL": "/bin/bash",
        }

    def start(self, *words: str | Path, uid: int = 0, **popen: Any) -> subprocess.Popen[bytes]:
        """A process that ends with the instance."""
        popen.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(self.inside(*words, uid=uid), env=self.environment(uid), **popen)
        self._started.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End one of them, and what it has started."""
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        self._started.remove(process)

    def run(
        self, *words: str | Path, uid: int = 0, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run something to its end."""
        return subprocess.run(
            self.inside(*words, uid=uid),
            env=self.environment(uid),
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout,
            check=False,
        )

    def path(self, path: str) -> Path:
        """A file of the namespace, as this process reaches it."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    # -- bus and polkit ---------------------------------------------------------------------------------------------

    def start_bus(self, *, polkit: bool = True) -> None:
        """dbus-daemon and polkitd."""
        log = (self.root / "bus.log").open("ab")
        self.bus = self.start(
            "dbus-daemon", "--system", "--nofork", "--nopidfile", "--nosyslog", stdout=log, stderr=log
        )
        self._await(lambda: self.run("test", "-S", BUS).returncode == 0, "the bus")
        if polkit:
            self.polkit = self.start("/usr/lib/polkit-1/polkitd", "--no-debug", stdout=log, stderr=log)
            words = ("pkaction", "--action-id", "dev.attestd.approve")
            self._await(lambda: self.run(*words).returncode == 0, "polkit")
        log.close()

    # -- the daemon -------------------------------------------------------------------------------------------------

    def settings(self, text: str) -> None:
        """attestd.toml."""
        self.path("/etc/attestd/attestd.toml").write_text(text, encoding="utf-8")

    def server(self, name: str, text: str) -> None:
        """A file of servers.d."""
        self.path(f"/etc/attestd/servers.d/{name}.toml").write_text(text, encoding="utf-8")

    @contextlib.contextmanager
    def serving(self, name: str, *, uid: int) -> Iterator[str]:
        """An echo server for as long as it is needed; the socket's path in the namespace."""
        before = len(self._started)
        path = self.serve(name, uid=uid, mark=name)
        try:
            yield path
        finally:
            self.end(self._started[before])

    def serve(self, name: str, *, uid: int = 0, mark: str = "") -> str:
        """An echo server on a socket, run by this uid; the socket's path in the namespace."""
        script = self.script(f"serve_{mark or 'plain'}.py", SERVE.replace("{mark}", mark))
        echo = self.script("echo_server.py", ECHO)
        directory = f"/run/{name}"
        self.run("install", "-d", "-o", str(uid), "-m", "0755", directory)
        path = f"{directory}/{name}.sock"
        process = self.start(PYTHON, script, path, PYTHON, echo, self.calls, uid=uid, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return path

    def register_echo(self, name: str = "echo", *, uid: int = 0) -> None:
        """A server for everybody, in servers.d, that this uid runs."""
        path = self.serve(name, uid=uid)
        self.server(
            name, f'[server]\nname = "{name}"\ntransport = "unix"\nsocket = "{path}"\n[server.peer]\nuid = {uid}\n'
        )

    def run_daemon(self) -> None:
        """``attestd run`` as its own user, and wait until it serves."""
        log = (self.root / "daemon.log").open("ab")
        words = (SCRIPTS / "attestd", "run", "--recorder", "/sys/fs/bpf/nothing", "--no-process-events")
        self.daemon = subprocess.Popen(
            self.inside(*words, uid=SERVICE, caps=CAPABILITIES),
            env={**self.environment(SERVICE), "HOME": "/nonexistent"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        self._await(lambda: self.run(SCRIPTS / "attestctl", "status").returncode == 0, "attestd")

    def log(self) -> str:
        """What the daemon wrote."""
        return (self.root / "daemon.log").read_text(encoding="utf-8", errors="replace")

    def stop_daemon(self) -> None:
        """End it in good order."""
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGTERM)
            assert self.daemon.wait(20) == 0, self.log()
            self.daemon = None

    def close(self) -> None:
        """End everything that was started here."""
        daemon = [] if self.daemon is None else [self.daemon]
        for process in (*daemon, *reversed(self._started), self._holder):
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    # -- people and programs ----------------------------------------------------------------------------------------

    def ctl(self, *words: str, uid: int = 0, code: int = 0) -> list[dict[str, Any]]:
        """Attestctl … --json as this uid; asserts its exit code."""
        result = self.run(SCRIPTS / "attestctl", *words, "--json", uid=uid)
        assert result.returncode == code, f"attestctl {words}: {result.returncode} {result.stdout} {result.stderr}"
        return [json.loads(line) for line in result.stdout.splitlines() if line.strip()]

    def refused(self, *words: str, uid: int, code: int | None = None) -> str:
        """What attestctl says when it is refused."""
        result = self.run(SCRIPTS / "attestctl", *words, "--json", uid=uid)
        assert result.returncode != 0
        assert code is None or result.returncode == code, result.stderr
        assert result.stdout == ""
        return result.stderr

    def script(self, name: str, text: str) -> Path:
        """A program on disk that everybody may read."""
        path = self.root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
            time.sleep(SETTLE_S)
        return path

    @contextlib.contextmanager
    def client(self, uid: int, server: str = "echo", *, argv: Sequence[str | Path] = ()) -> Iterator[Client]:
        """A running client of this uid; by default the talker on the server's socket."""
        talker = self.script("talk.py", TALK.replace("{mark}", "system"))
        words = argv or (PYTHON, talker, f"/run/attestd/mcp/{server}.sock")
        process = subprocess.Popen(
            self.inside(*words, uid=uid), env=self.environment(uid), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        client = Client(process)
        try:
            yield client
        finally:
            client.close()

    def grant(self, uid: int, server: str = "echo", **client: Any) -> dict[str, Any]:
        """Let a client be refused, and approve it as root for every tool, whoever launched it."""
        with self.client(uid, server, **client) as refused:
            code = refused.initialize()["error"]["data"]["code"]
        entry = next(each for each in self.ctl("pending") if each["code"] == code)
        launchers = [
            word for each in entry["caller"]["launchers"] for word in ("--launched-by", each["program"] or "unreadable")
        ]
        return self.ctl("approve", code, *launchers, "--all-tools", "--for", "standing", "--yes")[0]

    def _await(self, true: Any, what: str) -> None:
        deadline = time.monotonic() + START_S
        while not true():
            assert time.monotonic() < deadline, f"{what} did not start: {self.logs()}"
            assert self.daemon is None or self.daemon.poll() is None, self.logs()
            time.sleep(0.05)

    def logs(self) -> str:
        """What anything here wrote."""
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(self.root.glob("*.log")))


def hashed(password: str) -> str:
    """As /etc/shadow wants it."""
    words = ["openssl", "passwd", "-6", "-stdin"]
    return subprocess.run(words, input=password, capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def system(
    *, settings: str = "", polkit: bool = False, servers: Mapping[str, int] | None = None
) -> Iterator[SystemInstance]:
    """A running installation; ``servers``: name and the uid that runs it, by default ``echo`` by root."""
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    instance = SystemInstance(root)
    try:
        instance.settings(settings)
        for name, uid in ({"echo": 0} if servers is None else servers).items():
            instance.register_echo(name, uid=uid)
        if polkit:
            instance.start_bus()
        instance.run_daemon()
        yield instance
        instance.stop_daemon()
    finally:
        instance.close()
        shutil.rmtree(root, ignore_errors=True)
