"""``python -m tests.bench [full|quick] [MODULE…]``: measure the figures, show them, keep them as JSON.

A figure that is over its limit is shown as such and is not an error: speed is never asserted, because it is not only
ours. Exit 1 means that something could not be measured.
"""

from __future__ import annotations

import os
import sys
import time
import traceback

from tests.bench import (
    attestation,
    calls,
    events,
    grants,
    hashing,
    http_calls,
    http_idle,
    http_many,
    launched,
    memory,
    recorder,
    relay,
    shim_start,
    streams,
    tcp,
    verifying,
)
from tests.bench.report import Figure, failed, keep, show

MODULES = (
    relay,
    calls,
    attestation,
    hashing,
    grants,
    shim_start,
    memory,
    verifying,
    recorder,
    tcp,
    events,
    http_calls,
    http_many,
    streams,
    http_idle,
    launched,
)


def main(words: list[str]) -> int:
    """Run the modules in turn."""
    mode = words[0] if words else "full"
    names = {module.__name__.rpartition(".")[2]: module for module in MODULES}
    chosen = words[1:] or list(names)
    if mode not in {"full", "quick"} or not set(chosen) <= names.keys():
        print(f"usage: python -m tests.bench [full|quick] [{'|'.join(names)}]…", file=sys.stderr)
        return 2
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.monotonic()
    figures: list[Figure] = []
    for name in chosen:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            figures += names[name].measure(quick=mode == "quick")
        except Exception as error:
            traceback.print_exc()
            figures.append(failed(name, f"{type(error).__name__}: {error}"[:200]))
    show(figures)
    path = keep(figures, mode, time.monotonic() - start)
    over = sum(figure.verdict == "over" for figure in figures)
    lost = sum(figure.verdict == "failed" for figure in figures)
    print(f"{len(figures)} figures, {over} over their limit, {lost} not measured; written to {path}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
