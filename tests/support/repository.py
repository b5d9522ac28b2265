"""The files of this repository, without asking git: tests also run in copies that have none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = frozenset(
    {
        ".git",
        ".venv",
        ".conformance",
        "build",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
    }
    | {".import_linter_cache", "bench-results", ".coverage"}
)
"""What tools make."""


def files(*suffixes: str, below: str = "") -> Iterator[Path]:
    """Every file of the repository with one of these suffixes (none: every file), sorted."""
    for path in sorted((ROOT / below).rglob("*")):
        parts = path.relative_to(ROOT).parts
        made = not GENERATED.isdisjoint(parts) or any(part.endswith(".egg-info") for part in parts)
        if not made and path.is_file() and (not suffixes or path.suffix in suffixes):
            yield path


def name(path: Path) -> str:
    """A file as messages name it."""
    return path.relative_to(ROOT).as_posix()
