"""Writes docs/reference: ``python -m docs.generate``; with ``--check`` it only says which pages are not current.

Every page is a function of the code's own tables, so a page cannot say what the code does not do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from docs.generator import causes, commands, configuration, features, levels, methods

REFERENCE = Path(__file__).resolve().parent / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "causes.md": causes.render,
    "cli.md": commands.render,
    "configuration.md": configuration.render,
    "kernel-features.md": features.render,
    "levels.md": levels.render,
    "methods.md": methods.render,
}


def stale(directory: Path = REFERENCE) -> tuple[str, ...]:
    """The pages of ``directory`` that are missing or not what the code says."""
    return tuple(name for name, render in PAGES.items() if _text(directory / name) != render())


def write(directory: Path = REFERENCE) -> None:
    """Write every page."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, render in PAGES.items():
        (directory / name).write_text(render(), encoding="utf-8")


def main(words: Sequence[str]) -> int:
    """Write the pages, or with ``--check`` name those that are not current; exit code 1 if there are any."""
    if list(words) not in ([], ["--check"]):
        sys.stderr.write("usage: python -m docs.generate [--check]\n")
        return 2
    if not words:
        write()
        return 0
    found = stale()
    for name in found:
        sys.stderr.write(f"docs/reference/{name} is not what the code says; run: make fix\n")
    return 1 if found else 0


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
