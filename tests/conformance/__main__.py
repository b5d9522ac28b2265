"""``python -m tests.conformance [direct] [suites|client|matrix]… [FILTER]``: what works without attestd works with it.

Runs the conformance suites of the specification and a matrix of real servers and clients, directly and through attestd,
and shows both sides. Exit 1: a difference that expected.toml does not explain, or an entry there that explains nothing.
With ``direct`` only the direct side runs, as a baseline. FILTER is a part of ``client and server`` of the matrix.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from tests.conformance import cells, suites
from tests.conformance.expected import Difference, entries, judge
from tests.conformance.installed import PLACE, Installed, install
from tests.conformance.matrix import plain
from tests.conformance.mediated import HAS_TCP, TRANSPORTS, attestd
from tests.conformance.stage import everything, everything_stdio, listening

GROUPS = ("suites", "client", "matrix")


class Run:
    """One run of the harness and what it found."""

    def __init__(self, installed: Installed, scratch: Path, words: list[str]) -> None:
        self.installed = installed
        self.scratch = scratch
        self.mediated = "direct" not in words
        self.groups = [word for word in words if word in GROUPS] or list(GROUPS)
        self.filter = next((word for word in words if word not in (*GROUPS, "direct")), "")
        self.differences: list[Difference] = []
        self.compared: set[str] = set()
        self.results: dict[str, object] = {}

    def suites(self) -> None:
        """The server suites."""
        server = everything(self.installed)
        for suite in suites.SERVER:
            with listening(server, self.scratch) as url:
                direct = suites.server(self.installed, suite, url)
            shown = ["not run"]
            if self.mediated and HAS_TCP:
                shown = [self._mediated_suite(suite, direct, back) for back in ("stdio", "http") if back in TRANSPORTS]
            line(f"{suite.name:<28} direct: {suites.summary(direct):<32} {' | '.join(shown)}")
            self.results[suite.name] = direct

    def _mediated_suite(self, suite: suites.Suite, direct: suites.Checks, back: str) -> str:
        one = suites.Suite(name=suite.name, version=suite.version, words=("--scenario", "server-initialize"))
        with contextlib.ExitStack() as stack:
            daemon = stack.enter_context(attestd())
            if back == "stdio":
                daemon.register(everything_stdio(self.installed), "everything")
            else:
                server = everything(self.installed)
                daemon.register(server, "everything", stack.enter_context(listening(server, self.scratch)))
            url = f"http://localhost:{daemon.port}/everything/mcp"
            daemon.admit("everything", lambda: suites.server(self.installed, one, url))
            through = suites.server(self.installed, suite, url)
        self._compare(suites.Suite(name=f"{suite.name} {back}", version="", words=()), direct, through)
        return f"through attestd to {back}: {suites.summary(through)}"

    def client(self) -> None:
        """The client suites."""
        command = [sys.executable, "-m", "tests.conformance.through"]
        program = str(self.installed.conformance_client)
        for suite in suites.CLIENT:
            direct = suites.client(self.installed, suite, shlex.join([*command, "direct", program]))
            shown = "not run"
            if self.mediated and HAS_TCP and "http" in TRANSPORTS:
                mediated = suites.client(self.installed, suite, shlex.join([*command, "attestd", program]))
                self._compare(suite, direct, mediated)
                shown = suites.summary(mediated)
            line(f"{suite.name:<28} direct: {suites.summary(direct):<32} through attestd: {shown}")
            self.results[suite.name] = direct

    def _compare(self, suite: suites.Suite, direct: suites.Checks, mediated: suites.Checks) -> None:
        self.compared.add(suite.name)
        self.differences += suites.compare(suite, direct, mediated)

    def matrix(self) -> None:
        """Servers x clients x fronts."""
        found = cells.run(self.installed, self.scratch, mediated=self.mediated, wanted=self.filter, shown=line)
        if self.mediated:
            self.compared.add("matrix")
        for each in found:
            self.differences += each.differences
            self.results[each.name] = {name: list(map(plain, out)) for name, out in each.direct.items()}


def line(text: str) -> None:
    """Show at once."""
    print(text, flush=True)


def report(run: Run) -> int:
    """Say what differed and whether that was meant; the exit status."""
    unexpected, expected, stale = judge(run.differences, entries(), run.compared if not run.filter else set())
    for entry in dict.fromkeys(entry for _, entry in expected):
        alike = [each for each, found in expected if found == entry]
        line(f"expected  {len(alike)} x {entry.match}\n          {entry.reason}")
        line(f"          such as {alike[0].key}\n{alike[0].sides}")
    for each in unexpected:
        line(f"DIFFERS   {each.key}\n{each.sides}")
    for entry in stale:
        line(f"STALE     {entry.match}: nothing differs there any more")
    (PLACE / "results.json").write_text(json.dumps(run.results, indent=1), encoding="utf-8")
    line(f"{len(unexpected)} unexpected differences, {len(expected)} expected, {len(stale)} stale entries")
    return 1 if unexpected or stale else 0


def main(words: list[str]) -> int:
    """Run the groups in turn."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # through every ``finally``
    with tempfile.TemporaryDirectory(prefix="cf-", ignore_cleanup_errors=True) as scratch:
        run = Run(install(), Path(scratch), words)
        for group in run.groups:
            getattr(run, group)()
        return report(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
