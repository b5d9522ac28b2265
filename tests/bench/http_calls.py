"""A whole call over Streamable HTTP: the real SDK client and a server made with the SDK, directly and through proxies.

Three ways, each with attestd beside the proxies that go it: HTTP to HTTP, HTTP to a server over stdio, stdio to a
server over HTTP. One client holds all connections of a way open and calls on them in turn, a few calls at a time, so
that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tests.bench import peers
from tests.bench.http_stage import Target, fronted, http_server, sdk_server, time_calls
from tests.bench.report import Figure
from tests.bench.stage import one_cpu
from tests.support.instance import SCRIPTS, Instance

CALLS = 5
"""Calls in turn on one connection."""
Times = Mapping[str, list[float]]
"""Microseconds of every call."""
OURS = "attestd"
DIRECT = "direct"
PLAIN = frozenset({DIRECT, OURS, "nginx"})
"""Not MCP proxies of others."""


def measure(*, quick: bool) -> list[Figure]:
    """Both eras for HTTP to HTTP; the peers of the other ways speak the legacy one only."""
    rounds = 100 if quick else 600
    with one_cpu(), fronted() as (made, port), http_server(made) as url:
        command = sdk_server(made)
        made.server("over-http", transport="http", url=url)
        made.server("over-stdio", command=command)
        made.start()
        at = f"http://127.0.0.1:{port}"
        straight: dict[str, Target] = {DIRECT: url, OURS: f"{at}/over-http/mcp"}
        figures = []
        with peers.started({"nginx": (peers.nginx, url), "fastmcp": (peers.fastmcp, url)}, made.root) as (found, why):
            for mode, era in (("legacy", "2025-11-25"), ("auto", "2026-07-28")):
                times = _times(made, mode, rounds, {**straight, **found})
                figures += _whole(f"HTTP to HTTP, {era}", times, why, rounds)
        wanted = {
            "mcp-proxy": (peers.mcp_proxy, command),
            "supergateway": (peers.supergateway, command),
            "fastmcp": (peers.fastmcp, command),
        }
        with peers.started(wanted, made.root) as (found, why):
            times = _times(made, "legacy", rounds // 2, {OURS: f"{at}/over-stdio/mcp", **found})
            figures.append(_ahead("HTTP to stdio", times, why, rounds // 2))
        wanted = {
            "mcp-remote": (peers.mcp_remote, url),
            "mcp-proxy": (peers.mcp_proxy_stdio, url),
            "fastmcp": (peers.fastmcp_stdio, url),
        }
        with peers.started(wanted, made.root) as (found, why):
            shim = [str(SCRIPTS / "attestd-connect"), "--user", "over-http"]
            times = _times(made, "legacy", rounds // 2, {OURS: shim, **found})
            figures.append(_ahead("stdio to HTTP", times, why, rounds // 2))
    return figures


def _times(made: Instance, mode: str, rounds: int, targets: dict[str, Target]) -> Times:
    time_calls(made, mode, 1, 1, {OURS: targets[OURS]})  # lets the client in
    return time_calls(made, mode, rounds, CALLS, targets)


def _whole(way: str, times: Times, missing: Mapping[str, str], rounds: int) -> list[Figure]:
    """Through attestd ÷ direct at p50 and p99, and beside the proxies."""
    figures = []
    for percent, limit in ((50, 1.25), (99, 1.5)):
        parts = {f"{name} µs": percentile(values, percent) for name, values in times.items()}
        figures.append(
            Figure(
                name=f"whole call, SDK client and server, {way}, through attestd ÷ direct, p{percent}",
                value=parts[f"{OURS} µs"] / parts[f"{DIRECT} µs"],
                unit="×",
                limit=limit,
                parts=parts,
                note=_note(missing),
                rounds=rounds,
            )
        )
    return [*figures, _ahead(way, times, missing, rounds)]


def _ahead(way: str, times: Times, missing: Mapping[str, str], rounds: int) -> Figure:
    """Through attestd ÷ through the fastest MCP proxy that goes this way."""
    parts = {f"{name} µs": percentile(values, 50) for name, values in times.items()}
    others = [parts[f"{name} µs"] for name in times if name not in PLAIN]
    return Figure(
        name=f"whole call, {way}, through attestd ÷ the fastest MCP proxy",
        value=parts[f"{OURS} µs"] / min(others) if others else None,
        unit="×",
        limit=1.0,
        parts=parts,
        note=_note(missing),
        rounds=rounds,
        skipped=not others,
    )


def _note(missing: Mapping[str, str]) -> str:
    without = "".join(f"; without {name}: {why}" for name, why in missing.items())
    return f"all on one CPU; {peers.versions()}{without}"


def percentile(values: list[float], percent: int) -> float:
    """The nearest rank."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
