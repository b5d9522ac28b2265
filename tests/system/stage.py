"""The system that every check plays on: the package installed with apt, three ordinary users, servers, and their agents."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.support.repository import ROOT
from tests.system.machine import Machine

sys.path.insert(0, str(ROOT / "packaging" / "deb"))
import environment

USERS = ("alice", "bob", "carol")
PASSWORD = "correct horse {user}"
INSIDE = Path(__file__).with_name("inside")
AGENT = "/opt/agents/agent.py"
ATTACKER = "/opt/agents/attacker.py"
COMPROMISED = "/opt/agents/compromised.py"
WEB = "/opt/agents/web.py"
BPF = "/opt/agents/bpf.py"
DAMAGE = "/opt/agents/damage.py"
TERMS = ("--all-tools", "--for", "standing", "--launched-by", "unreadable")
"""What is granted: the agents here are started by a shell that reads its commands from a pipe."""
CONFIG = "/etc/attestd/attestd.toml"
CTL = ("attestctl", "--all-users")
"""As root: about everybody."""
TIME = {"timezone": "UTC"}
MEMORY_MIB = 64
"""That the server ``frugal`` may take."""
OPEN, WRITABLE = "/srv/open", "/srv/writable"
"""Where everybody may do everything to files; the second is what the server ``kept`` may still write."""
SERVERS = {
    "time": 'command = ["/opt/mcp/bin/mcp-server-time"]',
    "echo": 'command = ["/opt/mcp/bin/echo"]',
    "soak": 'command = ["/opt/mcp/bin/echo"]\nshared = true\nrun_as = "isolated"',
    "fixed": 'command = ["/opt/mcp/bin/echo"]\nrun_as = "user:carol"',
    "alone": 'command = ["/opt/mcp/bin/echo"]\nrun_as = "isolated"\nnetwork = false\n[server.limits]\nopen_files = 64',
    "kept": 'command = ["/opt/mcp/bin/echo"]\nread_only = true\nwritable = ["/srv/writable"]',
    "frugal": f'command = ["/opt/mcp/bin/echo"]\n[server.limits]\nmemory_mib = {MEMORY_MIB}',
}
TOOL = {"time": "get_current_time", "clock": "get_current_time"}
"""Of servers that have no ``echo``."""

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "attestd", "packaging", "policy")
"""What a wheel is made of."""

Seen = dict[str, object]


def packages(*versions: str) -> list[Path]:
    """Build the package under test, as each of these versions."""
    command = [sys.executable, "packaging/deb/build.py", "--uncompressed", "--output", "build/system"]
    command += [word for version in versions for word in ("--version", version)]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return [ROOT / line for line in built.stdout.splitlines()]


def wheels() -> Path:
    """What an index of packages has for attestd: a wheel of these sources, built now, and those that the lock names."""
    kept, needed = ROOT / "build" / "system" / "index", ROOT / "build" / "system" / "index-for-building"
    environment.download(ROOT / "requirements.lock", kept)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    if not needed.is_dir():
        words = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
        subprocess.run([*pip, "download", "--no-deps", "--only-binary=:all:", f"--dest={needed}", *words], check=True)
    with tempfile.TemporaryDirectory() as below:
        for name in SOURCES:
            place = Path(below) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copied(ROOT / name, place)
        for old in kept.glob("attestd-*"):
            old.unlink()
        built = ["wheel", "--no-deps", "--no-index", f"--find-links={needed}", f"--wheel-dir={kept}", below]
        subprocess.run([*pip, *built], check=True)
    return kept


def lay_servers(machine: Machine) -> None:
    """A real MCP server with its own packages, and a small one; for everybody, in root's hands."""
    kept = ROOT / "build" / "system" / "mcp"
    packages = machine.path("/opt/mcp/lib")
    environment.lay(packages, ROOT / "requirements.lock", kept, roots=("mcp-server-time",))
    script = "#!/usr/bin/python3 -I\nimport sys\nsys.path.insert(0, '/opt/mcp/lib')\n"
    machine.write("/opt/mcp/bin/mcp-server-time", f"{script}from mcp_server_time import main\nmain()\n", 0o755)
    machine.write("/opt/mcp/bin/echo", "#!/usr/bin/python3 -I\n" + (INSIDE / "echo.py").read_text(), 0o755)
    for program in (AGENT, ATTACKER, COMPROMISED, WEB, BPF, DAMAGE):
        machine.write(program, "#!/usr/bin/python3 -I\n" + (INSIDE / Path(program).name).read_text(), 0o755)


def lay_places(machine: Machine) -> None:
    """Directories for everybody, with the files that the ``files`` of the small server tries its hand at."""
    for place in (OPEN, WRITABLE):
        made = f"mkdir {place}; echo some text > {place}/kept; touch {place}/spare"
        machine.run("sh", "-ec", f"umask 0; {made}")


def lay_users(machine: Machine) -> None:
    """Ordinary users with passwords."""
    for user in USERS:
        machine.run("useradd", "--create-home", "--shell=/bin/bash", user)
    words = "".join(f"{user}:{PASSWORD.format(user=user)}\n" for user in USERS)
    machine.run("chpasswd", said=words)


def install(machine: Machine, deb: Path) -> str:
    """As an administrator does, with nothing but apt; what apt said. Raises FailedError."""
    inside = f"/root/{deb.name}"
    shutil.copy(deb, machine.path(inside))
    try:
        apt = "DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes install"
        done = machine.run("sh", "-c", f"{apt} {inside}", seconds=300)
        return done.stdout + done.stderr
    finally:
        machine.path(inside).unlink()


def register(machine: Machine, name: str, lines: str) -> None:
    """A server for everyone, by root."""
    machine.write(f"/etc/attestd/servers.d/{name}.toml", f'[server]\nname = "{name}"\ntransport = "stdio"\n{lines}\n')


def agent(
    machine: Machine,
    user: str,
    mode: str,
    server: str,
    *more: str,
    tool: str = "",
    seconds: float = 120,
    **arguments: object,
) -> Seen:
    """What an agent of a user came to, in its own words. ``arguments``: of the tool, where it needs other than usual."""
    said = json.dumps(arguments or (TIME if server in {"time", "clock"} else {"said": "hello"}))
    words = (AGENT, mode, server, tool or TOOL.get(server, "echo"), said, *more)
    done = machine.run(*words, user=user, seconds=seconds, check=False, shell=True)
    lines = done.stdout.splitlines()
    if not lines:
        raise AssertionError(f"{' '.join(words)} as {user} said nothing: {done.stderr[-500:]}")
    found: Seen = json.loads(lines[-1])
    return found


def code_of(seen: Seen) -> str:
    """The approval code of a refusal."""
    data = seen["data"]
    code = data.get("code") if isinstance(data, dict) else None
    if not code:
        raise AssertionError(f"expected a refusal with a code, got {seen}")
    return str(code)


def cause_of(seen: Seen) -> object:
    """Why it was refused; None: it was not, or not by attestd."""
    data = seen["data"]
    return data.get("cause") if isinstance(data, dict) else None


def grant(machine: Machine, user: str, server: str, *terms: str) -> None:
    """The agent of a user asks, root approves everything of the server."""
    refused = agent(machine, user, "once", server)
    if refused["ok"]:
        return
    wanted = terms or TERMS
    machine.run(*CTL, "approve", code_of(refused), *wanted, "--yes")


def records(machine: Machine, *filters: str) -> list[dict[str, object]]:
    """Of the audit log, as root reads them."""
    return machine.json(*CTL, "audit", "query", "--json", *filters)


def inside_pids(machine: Machine, unit: str) -> list[int]:
    """Processes of a unit, as seen from outside."""
    group = machine.shown(unit, "ControlGroup")
    every = f"find /sys/fs/cgroup{group} -name cgroup.procs -exec cat {{}} +"
    listed = machine.run("sh", "-c", every, check=False).stdout
    return [int(pid) for pid in listed.split()]


@contextlib.contextmanager
def configured(machine: Machine, lines: str, *, instead_of: str = "") -> Iterator[None]:
    """With these lines at the end of the configuration, or for others there; the one before is back at the end."""
    before = machine.path(CONFIG).read_text()
    machine.path(CONFIG).write_text(before.removesuffix(instead_of) + lines)
    try:
        machine.systemctl("reload", "attestd.service")
        yield
    finally:
        machine.path(CONFIG).write_text(before)
        machine.systemctl("reload", "attestd.service")
