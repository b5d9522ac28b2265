"""From the start of attestd-connect to the first byte that it relays, beside an interpreter that does nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import attestd
from attestd.shim import OFFER, TAKEN
from tests.bench.report import Figure
from tests.bench.rounds import medians
from tests.support.instance import SCRIPTS
from tests.support.shimming import LISTENER

NAME = "shim start to first byte relayed ÷ python3 -I -S -c pass"


def measure(*, quick: bool) -> list[Figure]:
    """The time until the daemon's side has read the first byte of the client, in a clean installation."""
    rounds = 25 if quick else 101
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as directory, ExitStack() as ended:
        home = Path(directory)
        bin_ = install(home / "venv")
        socket_ = home / "time.sock"
        front = _listen(bin_, socket_, ended)
        python = str(bin_ / "python3")
        shim = [str(bin_ / "attestd-connect"), "--socket", str(socket_), "--user", "time"]
        times: dict[str, list[float]] = {"python3 ms": [], "shim ms": []}
        for number in range(rounds + 3):
            base, ours = _nothing(python, environment), _first_byte(shim, front, environment)
            if number >= 3:  # the first ones write the bytecode
                times["python3 ms"].append(base)
                times["shim ms"].append(ours)
        parts = medians(times, 1e3)
    value = parts["shim ms"] / parts["python3 ms"]
    note = "a clean, not editable installation in a virtual environment of its own"
    return [Figure(name=NAME, value=value, unit="×", limit=2.0, parts=parts, note=note, rounds=rounds)]


def install(venv: Path) -> Path:
    """What pip makes of a wheel: the package in site-packages, the console script with pip's wrapper; its ``bin``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    bin_ = venv / "bin"
    site = next((venv / "lib").glob("python3*/site-packages"))
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(attestd.__file__).parent, site / "attestd", ignore=ignore)
    _, _, wrapper = (SCRIPTS / "attestd-connect").read_text(encoding="utf-8").partition("\n")
    for name, text in (("attestd-connect", wrapper), ("attestd", LISTENER.partition("\n")[2])):
        (bin_ / name).write_text(f"#!{bin_ / 'python3'}\n{text}", encoding="utf-8")
        (bin_ / name).chmod(0o755)
    return bin_


def _listen(bin_: Path, path: Path, ended: ExitStack) -> socket.socket:
    """The program ``attestd`` of that installation listens, as the shim demands; the socket is ours to accept on."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [str(bin_ / "attestd"), str(path), str(theirs.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
        )
        ended.callback(process.communicate)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    return ended.enter_context(socket.socket(fileno=fds[0]))


def _first_byte(command: list[str], front: socket.socket, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    process.stdin.write(b"x")
    process.stdin.flush()
    accepted, _ = front.accept()
    said, (source, sink), _, _ = socket.recv_fds(accepted, 1, 2)
    if said != OFFER or os.read(source, 1) != b"x":
        raise RuntimeError("the shim brought nothing of its client")
    taken = time.perf_counter() - start
    accepted.send(TAKEN)
    for fd in (source, sink):
        os.close(fd)
    accepted.close()
    process.communicate()
    return taken


def _nothing(python: str, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([python, "-I", "-S", "-c", "pass"], env=environment, check=True)
    return time.perf_counter() - start
