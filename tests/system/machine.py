"""A Debian of one's own with a real PID 1: systemd-nspawn on a copy of the kept root, and commands in it.

Everything happens in a mount namespace of this program, with the one cgroup hierarchy mounted where systemd looks for it,
whatever the machine around has there. The root lives in memory and is gone with the program. There is no network. What is
run inside is started by its PID 1 (systemd-run), so that it has a cgroup and, where asked for, a login session there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.instance import SETTLE_S
from tests.system import root

CGROUPS = Path("/sys/fs/cgroup")
CALLS = ("bpf", "perf_event_open", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
"""System calls that a machine has, and systemd-nspawn of 252 takes away."""
_PRIVATE = "ATTESTD_SYSTEM_TEST_NAMESPACE"
_ENTER = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")


def enter_namespace(words: Sequence[str]) -> None:
    """Go on in a mount namespace of our own; returns there. Needs root."""
    if os.environ.get(_PRIVATE) != "1":
        os.environ[_PRIVATE] = "1"
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.system", *words]
        os.execvp(command[0], command)
    if not (CGROUPS / "cgroup.controllers").is_file():
        subprocess.run(["umount", "--recursive", "--lazy", str(CGROUPS)], check=False, capture_output=True)
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(CGROUPS)], check=True)


class FailedError(Exception):
    """A command inside did not end as it had to."""


class Machine:
    """A running system."""

    def __init__(self, leader: int, source: Path) -> None:
        """``leader``: its PID 1, as seen from here; ``source``: where its files are, without what it has mounted."""
        self._leader = leader
        self.source = source

    def enter(self, *words: str) -> list[str]:
        """The command that runs ``words`` inside, as a process of ours."""
        return ["nsenter", f"--target={self._leader}", *_ENTER, "--", *words]

    def run(
        self,
        *words: str,
        user: str = "root",
        check: bool = True,
        said: str = "",
        seconds: float = 60,
        shell: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, as a service of the system with a clean environment.

        ``shell``: it is typed to a shell, as people start programs. Raises FailedError.
        """
        command, said = (("bash",), _typed(words) + said) if shell else (words, said)
        done = subprocess.run(
            self.enter(*self.unit(user, *command)),
            check=False,
            capture_output=True,
            text=True,
            input=said,
            timeout=seconds,
        )
        if check and done.returncode:
            shown = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}".strip()
            raise FailedError(f"{' '.join(words)[:300]} as {user} ended with {done.returncode}:\n{shown}")
        return done

    def unit(self, user: str, *words: str) -> list[str]:
        """The command that, inside, runs ``words`` as a service with our standard input and output."""
        unit = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--uid={user}", "--service-type=exec"]
        home = "/root" if user == "root" else f"/home/{user}"
        home = home if self.path(home).is_dir() else "/"
        unit += [f"--working-directory={home}", f"--setenv=HOME={home}", "--setenv=LANG=C.UTF-8"]
        return [*unit, "--", *(word.replace("$", "$$") for word in words)]  # the manager expands variables

    def out(self, *words: str, user: str = "root", seconds: float = 60) -> str:
        """Standard output of a command that must succeed."""
        return self.run(*words, user=user, seconds=seconds).stdout.strip()

    def walked(self, *words: str) -> str:
        """Standard output of a command that walks what lives, and says by its status what vanished under it."""
        return self.run(*words, check=False).stdout.strip()

    def json(self, *words: str, user: str = "root") -> list[dict[str, object]]:
        """What a command prints as one JSON object on each line, or as one."""
        text = self.out(*words, user=user)
        try:
            return [json.loads(text)]
        except ValueError:
            return [json.loads(line) for line in text.splitlines()]

    def start(self, *words: str, user: str = "root") -> subprocess.Popen[str]:
        """Start one command, typed to a shell, with pipes."""
        process = subprocess.Popen(
            self.enter(*self.unit(user, "bash")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if process.stdin is not None:
            process.stdin.write(_typed(words))
            process.stdin.flush()
        return process

    def systemctl(self, *words: str, check: bool = True, seconds: float = 90) -> subprocess.CompletedProcess[str]:
        """As the administrator, whose starts do not count: so many in a minute are the test's, and the unit bounds them."""
        if words[0] in {"start", "restart"}:
            subprocess.run(self.enter("systemctl", "reset-failed", *words[1:]), check=False, capture_output=True)
        done = subprocess.run(
            self.enter("systemctl", *words), check=False, capture_output=True, text=True, timeout=seconds
        )
        if check and done.returncode:
            raise FailedError(f"systemctl {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")
        return done

    def shown(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).stdout.strip()

    def main_pid(self, unit: str = "attestd.service") -> int:
        """Of a service, as seen inside; 0: it does not run."""
        return int(self.shown(unit, "MainPID"))

    def journal(self, unit: str, lines: int = 30) -> str:
        """The end of what a unit logged."""
        words = self.enter("journalctl", "--quiet", "--no-pager", "--output=short-precise", f"--lines={lines}")
        return subprocess.run([*words, f"--unit={unit}"], check=False, capture_output=True, text=True).stdout

    def path(self, inside: str) -> Path:
        """A file of the system as its PID 1 sees it, from outside."""
        return Path(f"/proc/{self._leader}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Lay a file of root's; a program is old enough afterwards to be attested."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        if mode & 0o100:
            time.sleep(SETTLE_S)


def _typed(words: Sequence[str]) -> str:
    """A command as it is typed; the shell ends with its status."""
    return f"{shlex.join(words)}; exit $?\n"


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """A system that has booted; powered off at the end."""
    group = CGROUPS / f"attestd-system-test-{os.getpid()}"
    with root.in_memory() as place:
        root.copy(place)
        group.mkdir()
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        options = ["--register=no", "--keep-unit", "--private-network", "--console=pipe", "--quiet"]
        options += ["--capability=CAP_BPF,CAP_PERFMON", f"--system-call-filter={' '.join(CALLS)}"]
        log = place.parent / "console"
        with log.open("wb") as console:
            container = subprocess.Popen(
                [*_in_group(group), "systemd-nspawn", *options, f"--directory={place}", "--boot"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
            )
            try:
                yield _ready(container, place, log)
            finally:
                _end(container)
                _remove(group)


def _in_group(group: Path) -> tuple[str, ...]:
    """The words before a command that runs in this cgroup from its start on, and not longer than this program."""
    return ("setpriv", "--pdeathsig", "KILL", "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")


def _ready(container: subprocess.Popen[bytes], place: Path, log: Path) -> Machine:
    """Wait until PID 1 says that it has booted."""
    deadline = time.monotonic() + 120
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    while time.monotonic() < deadline and container.poll() is None:
        pids = children.read_text().split()
        if pids:
            machine = Machine(int(pids[0]), place)
            state = subprocess.run(
                machine.enter("systemctl", "is-system-running", "--wait"), check=False, capture_output=True, text=True
            ).stdout.strip()
            if state in {"running", "degraded"}:
                return machine
        time.sleep(0.1)
    raise SystemExit(f"cannot boot the system:\n{log.read_text(errors='replace')[-4000:]}")


def _end(container: subprocess.Popen[bytes]) -> None:
    if container.poll() is None:
        container.send_signal(signal.SIGTERM)  # an orderly power-off
        try:
            container.wait(60)
        except subprocess.TimeoutExpired:
            container.kill()
            container.wait()


def _remove(group: Path) -> None:
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()
