"""The little Markdown that the generated pages need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def page(title: str, source: str, *parts: str) -> str:
    """A whole page: its title, where it comes from, its parts."""
    note = f"Generated from {source} by `python -m docs.generate`; do not edit it."
    return "\n\n".join((f"# {title}", note, *parts)) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def code(text: str) -> str:
    """Inline code, or nothing."""
    return f"`{text}`" if text else ""


def plain(docstring: str | None) -> str:
    """A docstring as Markdown: one paragraph, single backticks."""
    return " ".join((docstring or "").split()).replace("``", "`")
