"""Added latency of a mediated tools/call over a Unix socket, in units of what socat adds for the same bytes."""

from __future__ import annotations

import statistics

from tests.bench.report import Figure, failed
from tests.bench.stage import call_blocks, installed, instance, one_cpu, socat, unix_server

NAME = "added latency, one call over a Unix socket ÷ socat"


def measure(*, quick: bool) -> list[Figure]:
    """One client holds three connections (server, socat, attestd) and calls on them block by block in turn."""
    if installed("socat") is None:
        return [failed(NAME, "socat is not installed")]
    blocks, calls = (30, 100) if quick else (120, 200)
    with one_cpu(), instance() as made, unix_server(made) as path, socat(made, path) as relayed:
        made.start()
        direct, other, ours = call_blocks(made, blocks, calls, path, relayed, made.socket("bench"))
    parts = [statistics.median(column) for column in (direct, other, ours)]
    return [
        Figure(
            name=NAME,
            value=(parts[2] - parts[0]) / (parts[1] - parts[0]),
            unit="×",
            limit=4.0,
            parts={"direct µs": parts[0], "socat µs": parts[1], "attestd µs": parts[2]},
            note="all on one CPU",
            rounds=blocks,
        )
    ]
