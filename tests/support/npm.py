"""Packages of npm that tests need, installed once from a package-lock.json with its digests; no script of a package runs."""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".conformance"
FILES = ("package.json", "package-lock.json", ".npmrc")


class MissingError(Exception):
    """Npm cannot be had here. The text says why."""


def install(lock: Path, name: str) -> Path:
    """Install what the files in ``lock`` name into ``.conformance/NAME``; quick when it is there.

    Returns:
        That directory.

    Raises:
        MissingError: There is no npm, or it fails.
    """
    place = PLACE / name
    place.mkdir(parents=True, exist_ok=True)
    with (PLACE / f"{name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        digest = hashlib.sha256((lock / "package-lock.json").read_bytes()).hexdigest()
        mark = place / ".installed"
        if not mark.exists() or mark.read_text(encoding="utf-8") != digest:
            shutil.rmtree(place)
            place.mkdir()
            for file in FILES:
                shutil.copy(lock / file, place / file)
            _install(place)
            mark.write_text(digest, encoding="utf-8")
    return place


def _install(place: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingError("npm is not on PATH")
    words = [npm, "ci", "--ignore-scripts", "--no-update-notifier"]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(f"npm ci failed: {done.stderr.strip()[-300:]}")


def node(place: Path) -> Path:
    """Node 22, which is a package too."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return place / "node_modules" / f"node-{sys.platform}-{machine}" / "bin" / "node"


def program(source: Path, place: Path) -> Path:
    """Our own program beside the modules that it imports; left alone if it is the same.

    A script as young as its process is not attestable.
    """
    target = place / source.name
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copy(source, target)
    return target
