"""The conformance suites of the specification, against a URL or a client command: every check by its name.

A result is what the suite wrote into ``checks.json``, keyed by scenario, check and its count in the scenario, because a
check may be made several times. Totals are shown and never compared.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import msgspec

from tests.conformance.expected import Difference
from tests.conformance.installed import Installed

STAMP = re.compile(r"-?\d{4}-\d{2}-\d{2}T[\d-]+Z$")
Checks = dict[str, str]
"""``scenario / check #n`` to its status."""


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a suite."""

    name: str
    version: str
    words: tuple[str, ...]


SERVER = (
    Suite(name="0.1.16 active", version="0.1", words=()),
    Suite(name="0.1.16 all", version="0.1", words=("--suite", "all")),
    *(
        Suite(name=f"0.2.0-alpha.12 {at}", version="0.2", words=("--suite", "all", "--spec-version", at))
        for at in ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
    ),
)
CLIENT = tuple(
    Suite(name=f"client {at}", version="0.2", words=("--suite", "all", "--timeout", "300000", "--spec-version", at))
    for at in ("2025-11-25", "2026-07-28")
)
EXCLUDED = "auth/"
"""OAuth binds the resource's own URL, and a proxy has another: not ours to pass."""


def server(installed: Installed, suite: Suite, url: str) -> Checks:
    """Run a server suite against a URL."""
    return _run([*installed.suite(suite.version), "server", "--url", url, *suite.words], "server-")


def client(installed: Installed, suite: Suite, command: str) -> Checks:
    """Run a client suite; the suite puts the URL of its own server behind ``command``."""
    words = [*installed.suite(suite.version), "client", "--command", command, *suite.words]
    found = _run(words, "")
    return {key: status for key, status in found.items() if not key.startswith(EXCLUDED)}


def _run(words: list[str], prefix: str) -> Checks:
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [*words, "-o", scratch],
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        found: Checks = {}
        root = Path(scratch)
        for path in sorted(root.rglob("checks.json")):
            scenario = STAMP.sub("", str(path.parent.relative_to(root))).removeprefix(prefix)
            seen: Counter[str] = Counter()
            for check in json.loads(path.read_text(encoding="utf-8")):
                seen[check["id"]] += 1
                found[f"{scenario} / {check['id']} #{seen[check['id']]}"] = check["status"]
        if not found:
            raise RuntimeError(f"the suite wrote no checks: {done.stdout[-500:]} {done.stderr[-1500:]}")
    return found


def compare(suite: Suite, direct: Checks, mediated: Checks) -> list[Difference]:
    """Every check whose status is another, or that is made on one side only."""
    return [
        Difference(
            group=suite.name,
            case=key.split(" / ")[0],
            step=key.split(" / ")[1],
            direct=direct.get(key, "not made"),
            mediated=mediated.get(key, "not made"),
        )
        for key in sorted(direct.keys() | mediated.keys())
        if direct.get(key) != mediated.get(key)
    ]


def summary(checks: Checks) -> str:
    """For people."""
    count = Counter(checks.values())
    failed = count["FAILURE"] + count["ERROR"]
    other = sum(count.values()) - count["SUCCESS"] - failed
    return f"{count['SUCCESS']} passed, {failed} failed" + (f", {other} other" if other else "")
