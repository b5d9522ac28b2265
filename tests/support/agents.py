"""Programs that try to approve themselves: ways in which an agent can start attestctl, unseen as it hopes.

Each way is a command line that runs ``words`` and prints, as its last line of JSON, exit status and output.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.instance import Instance
from tests.support.wire_attacks import until

AGENT = '''\
"""An agent with a shell tool. argv: the command."""
import json, subprocess, sys

done = subprocess.run(sys.argv[1:], stdin=-3, stdout=-1, stderr=-2, text=True)  # DEVNULL, PIPE, STDOUT
print(json.dumps([done.returncode, done.stdout]))
'''
TYPIST = '''\
"""An agent that opens a terminal of its own and types. argv: what it types, then the program that reads it."""
import json, os, pty, sys, time

pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
time.sleep(0.5)
os.write(terminal, sys.argv[1].encode() + b"\\n")
said = b""
while True:
    try:
        data = os.read(terminal, 65536)
    except OSError:
        break
    if not data:
        break
    said += data
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps([status, said.decode(errors="replace")]))
'''
ORPHAN = '''\
"""An agent that hides behind a double fork and a session of its own. argv: result file, command."""
import json, os, subprocess, sys, time

if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
parent = os.getppid()
deadline = time.monotonic() + 5
while os.getppid() == parent and time.monotonic() < deadline:
    time.sleep(0.01)
os.execv(sys.argv[3], sys.argv[3:]) if sys.argv[2] == "exec" else None
done = subprocess.run(sys.argv[3:], stdin=-3, stdout=-1, stderr=-2, text=True)  # DEVNULL, PIPE, STDOUT
with open(sys.argv[1] + ".new", "w") as f:
    f.write(json.dumps([done.returncode, done.stdout]))
os.rename(sys.argv[1] + ".new", sys.argv[1])
'''

Way = Callable[[Instance, Sequence[str]], tuple[int, str]]


def attestctl(instance: Instance, *words: str) -> list[str]:
    """The real one."""
    return [str(instance.scripts / "attestctl"), *words]


def agent(instance: Instance, *command: str, script: str = AGENT, name: str = "agent.py") -> tuple[int, str]:
    """Run a command as the agent does; its exit status and what was seen."""
    program = instance.script(name, script)
    done = subprocess.run(
        [sys.executable, str(program), *command],
        env=instance.environment | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    status, said = json.loads(done.stdout.splitlines()[-1])
    return int(status), str(said)


def directly(instance: Instance, words: Sequence[str]) -> tuple[int, str]:
    """The shell tool runs attestctl."""
    return agent(instance, *words)


def by_sh(instance: Instance, words: Sequence[str]) -> tuple[int, str]:
    """The shell tool runs a shell line."""
    return agent(instance, "/bin/sh", "-c", f"{shlex.join(words)}; exit $?")


def by_bash_exec(instance: Instance, words: Sequence[str]) -> tuple[int, str]:
    """A shell line that is replaced by attestctl."""
    return agent(instance, "/bin/bash", "-c", f"exec {shlex.join(words)}")


def by_pty(instance: Instance, words: Sequence[str]) -> tuple[int, str]:
    """Attestctl on a terminal that the agent made."""
    return agent(instance, "", *words, script=TYPIST, name="typist.py")


def by_typing(instance: Instance, words: Sequence[str]) -> tuple[int, str]:
    """An interactive shell on a terminal that the agent made; the agent types."""
    typed = f"{shlex.join(words)}; exit $?"
    return agent(instance, typed, "/bin/bash", "--norc", "-i", script=TYPIST, name="typist.py")


def by_script(instance: Instance, words: Sequence[str]) -> tuple[int, str]:
    """The program ``script`` makes the terminal."""
    if shutil.which("script") is None:
        return directly(instance, words)
    return agent(instance, "script", "-qec", shlex.join(words), "/dev/null")


def by_double_fork(instance: Instance, words: Sequence[str]) -> tuple[int, str]:
    """Nobody's child any more, in a session of its own."""
    program = instance.script("orphan.py", ORPHAN)
    result = Path(tempfile.mkdtemp(dir=instance.root)) / "result"
    subprocess.run(
        [sys.executable, str(program), str(result), "child", *words], env=instance.environment, check=True, timeout=60
    )
    until(result.exists, "result")
    status, said = json.loads(result.read_text())
    return int(status), str(said)


def by_orphaned_shell(instance: Instance, words: Sequence[str]) -> tuple[int, str]:
    """A shell that is nobody's child runs attestctl: no script of the agent is left among its ancestors."""
    program = instance.script("orphan.py", ORPHAN)
    result = Path(tempfile.mkdtemp(dir=instance.root)) / "result"
    file, new = shlex.quote(str(result)), shlex.quote(f"{result}.new")
    text = f"{shlex.join(words)} >{new} 2>&1; echo $? >>{new}; mv {new} {file}"
    command = [sys.executable, str(program), str(result), "exec", "/bin/sh", "-c", text]
    subprocess.run(command, env=instance.environment, check=True, timeout=60)
    until(result.exists, "result")
    *said, status = result.read_text().splitlines()
    return int(status), "\n".join(said)


WAYS: dict[str, Way] = {
    "directly": directly,
    "sh -c": by_sh,
    "exec": by_bash_exec,
    "pty": by_pty,
    "typed into a shell": by_typing,
    "script": by_script,
    "double fork": by_double_fork,
    "orphaned shell": by_orphaned_shell,
}


def in_tmux(instance: Instance, words: Sequence[str]) -> tuple[int, str]:
    """What a person does: a shell at its prompt in a terminal multiplexer."""
    socket, result = instance.root / "tmux", instance.root / "tmux.result"
    tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
    environment = instance.environment | {"TERM": "xterm", "SHELL": "/bin/bash"}

    def run(*more: str) -> None:
        subprocess.run([*tmux, *more], env=environment, check=True, timeout=30, capture_output=True)

    run("new-session", "-d", "-x", "200", "-y", "50", "/bin/bash --norc -i")
    try:
        file, new = shlex.quote(str(result)), shlex.quote(f"{result}.new")
        run("send-keys", f"{shlex.join(words)} >{new} 2>&1; echo $? >>{new}; mv {new} {file}", "Enter")
        until(result.exists, "result", 30)
    finally:
        run("kill-server")
    *said, status = result.read_text().splitlines()
    result.unlink()
    return int(status), "\n".join(said)


def uid_judge(uid: int) -> bool:
    """What a daemon knows that asks for the uid alone."""
    return uid == os.geteuid()
