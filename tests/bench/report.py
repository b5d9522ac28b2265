"""What a figure is, how a run of them is shown on a terminal, and how it is kept as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from attestd import __version__

RESULTS = Path(__file__).resolve().parents[2] / "bench-results"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure with its limit (``None``: only shown) and what it was compared with in the same run."""

    name: str
    value: float | None
    """None: could not be measured; ``note`` says why."""
    unit: str
    limit: float | None
    parts: dict[str, float] = dataclasses.field(default_factory=dict)
    """What the value was made of: medians over rounds, each with its unit in the key."""
    note: str = ""
    rounds: int = 1
    skipped: bool = False
    """It cannot be measured here, which is no failure."""

    @property
    def verdict(self) -> str:
        """Ok, over, shown, not measured, or failed."""
        if self.value is None:
            return "not measured" if self.skipped else "failed"
        if self.limit is None:
            return "shown"
        return "ok" if self.value <= self.limit else "over"


def failed(name: str, why: str) -> Figure:
    """A figure that could not be measured."""
    return Figure(name=name, value=None, unit="", limit=None, note=why)


def unmeasured(name: str, why: str) -> Figure:
    """A figure that this machine or this user cannot have."""
    return Figure(name=name, value=None, unit="", limit=None, note=f"not measured: {why}", skipped=True)


def show(figures: Sequence[Figure]) -> None:
    """The table: on a terminal with colours, elsewhere as plain text."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table("figure", "measured", "at most", "", "made of")
    for figure in figures:
        value = "-" if figure.value is None else f"{figure.value:.4g} {figure.unit}".strip()
        limit = "" if figure.limit is None else f"{figure.limit:g} {figure.unit}".strip()
        parts = ", ".join(f"{key} {part:.4g}" for key, part in figure.parts.items())
        style = {"ok": "green", "over": "bold red", "failed": "bold red"}.get(figure.verdict, "dim")
        made = "; ".join(part for part in (parts, figure.note) if part)
        table.add_row(figure.name, value, limit, f"[{style}]{figure.verdict}[/{style}]", made)
    console.print(table)


def keep(figures: Sequence[Figure], mode: str, seconds: float) -> Path:
    """Write the run below ``bench-results/``; the file."""
    RESULTS.mkdir(exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = RESULTS / f"{stamp}-{mode}.json"
    run = {
        "version": __version__,
        "mode": mode,
        "time": stamp,
        "seconds": round(seconds, 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": list(os.getloadavg()),
        "figures": [{**dataclasses.asdict(figure), "verdict": figure.verdict} for figure in figures],
    }
    path.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    return path
