"""``through.py direct|attestd CLIENT URL``: the client of a client suite, as it is or with an attestd of its own between.

The suite puts the URL of its server last; attestd gets it as a back end, and the client gets attestd's URL. Before that
the client is refused once and approved; the refused request never reaches the suite's server, which counts them.
Scenarios about OAuth are not run on either side: they bind the resource's own URL, and a proxy has another.
"""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import urlsplit

from tests.conformance.mediated import attestd
from tests.conformance.stage import Server
from tests.conformance.suites import EXCLUDED

SCENARIO = "MCP_CONFORMANCE_SCENARIO"


def run(client: str, url: str) -> int:
    """The client, in the suite's own environment."""
    return subprocess.run([sys.executable, client, url], check=False).returncode


def try_out(client: str, url: str) -> int:
    """The client once, to be refused: what it says is nobody's business."""
    environment = {**os.environ, SCENARIO: "initialize"}
    return subprocess.run([sys.executable, client, url], env=environment, capture_output=True, check=False).returncode


def main(way: str, client: str, url: str) -> int:
    """One scenario."""
    if os.environ.get(SCENARIO, "").startswith(EXCLUDED):
        return 1
    if way == "direct":
        return run(client, url)
    with attestd() as daemon:
        server = Server(name="suite", command=(), path=urlsplit(url).path or "/")
        daemon.register(server, "suite", url)
        own = f"http://localhost:{daemon.port}/suite/mcp"
        daemon.admit("suite", lambda: try_out(client, own))
        return run(client, own)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
