"""The Python environment that the package carries: the lock's wheels that attestd needs to run, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parent.parent.parent / "pyproject.toml"
_ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==\S+")


def runtime(roots: tuple[str, ...] = ("attestd",)) -> tuple[str, ...]:
    """Names of the distributions that these need on this platform, sorted; with them, except attestd itself."""
    wanted = {(name, "") for name in roots}
    waiting = list(wanted)
    while waiting:
        name, extra = waiting.pop()
        for line in _needs(name):
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                new = {(canonical(need.name), each) for each in ("", *need.extras)} - wanted
                wanted |= new
                waiting += new
    found = {name for name, _ in wanted} - {"attestd"}
    return tuple(sorted(found))


def _needs(name: str) -> list[str]:
    """What a distribution needs; of attestd what the project says now, not what it said when it was installed."""
    if name != "attestd":
        return metadata.requires(name) or []
    stated: list[str] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    return stated


def canonical(name: str) -> str:
    """A distribution's name as the lock writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: Path, names: tuple[str, ...]) -> str:
    """The part of the lock that names these distributions, digests and all. Raises SystemExit: one is missing."""
    kept: list[str] = []
    seen: set[str] = set()
    keeping = False
    for line in lock.read_text(encoding="utf-8").splitlines():
        entry = _ENTRY.match(line)
        if entry is not None:
            keeping = canonical(entry["name"]) in names
            seen.add(canonical(entry["name"]))
        if keeping and not line.lstrip().startswith("#"):
            kept.append(line)
    missing = set(names) - seen
    if missing:
        raise SystemExit(f"cannot build the package: {', '.join(sorted(missing))} missing in {lock.name}; make lock")
    return "\n".join(kept) + "\n"


def lay(packages: Path, lock: Path, kept: Path, *, roots: tuple[str, ...] = ("attestd",)) -> None:
    """Install what the lock names into ``packages``; kept in ``kept``, and downloaded only when the lock changed."""
    wanted = locked(lock, runtime(roots))
    asked = kept / "requirements.txt"
    if not asked.is_file() or asked.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        listed = kept / "asked.txt"
        listed.write_text(wanted, encoding="utf-8")
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        where = ["--no-compile", "--target", str(kept / "packages"), "--requirement", str(listed)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *where], check=True)
        listed.rename(asked)
    shutil.copytree(kept / "packages", packages, ignore=shutil.ignore_patterns("bin", "__pycache__", "RECORD"))


def download(lock: Path, kept: Path) -> None:
    """Keep in ``kept`` the wheels that the lock names for attestd; they are downloaded only when the lock changed."""
    wanted = locked(lock, runtime())
    asked = kept.with_suffix(".txt")
    if kept.is_dir() and asked.is_file() and asked.read_text(encoding="utf-8") == wanted:
        return
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    listed = kept.with_suffix(".new")
    listed.write_text(wanted, encoding="utf-8")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    where = ["--dest", str(kept), "--requirement", str(listed)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, *where], check=True)
    listed.rename(asked)


def licence(name: str) -> str:
    """What a distribution says of its license."""
    about = metadata.metadata(name)
    classified = [
        line.rsplit(" :: ", 1)[-1] for line in about.get_all("Classifier") or () if line.startswith("License")
    ]
    said = about.get("License-Expression") or "; ".join(classified) or about.get("License") or "see its dist-info"
    return said.split("\n", 1)[0][:100]
