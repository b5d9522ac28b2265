"""attestd in system mode below ``/run``, with the real launcher: a daemon of root's and clients of ordinary users.

Whoever connects is permitted by a policy of the host, so that nobody has to approve.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.instance import ECHO, TALK, Client
from tests.support.repository import ROOT
from tests.support.system_launcher import PYTHON, House

DAEMON = """
import sys
from pathlib import Path
import uvloop
from attestd.daemon.main import _serve
from attestd.daemon.paths import Paths
root = Path(sys.argv[1])
paths = Paths(config=root / "attestd", state=Path(sys.argv[2]), runtime=root / "run" / "attestd", user_mode=False)
uvloop.run(_serve(paths, "/sys/fs/bpf/nothing", process_events=False))
"""
EVERYBODY = '@id("everybody") permit (principal, action, resource);\n'
START_S = 60.0


class SystemMode:
    """One host."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.log = house.root / "daemon.log"
        self.state = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
        """On the same file system as an ``Instance``: an audit log in memory would be faster."""
        self.process: subprocess.Popen[bytes] | None = None
        policies = house.root / "attestd" / "policy.d"
        policies.mkdir()
        (policies / "everybody.cedar").write_text(EVERYBODY, encoding="utf-8")
        self.talker = house.root / "talk.py"
        self.talker.write_text(TALK.replace("{mark}", ""), encoding="utf-8")
        self.echo = house.root / "echo_server.py"
        self.echo.write_text(ECHO, encoding="utf-8")

    def register(self, name: str, **keys: object) -> None:
        """A server, by default the echo server."""
        lines = ["[server]", f'name = "{name}"', 'transport = "stdio"']
        keys = {"command": [PYTHON, "-I", str(self.echo)], **keys}
        self.house.write(name, "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]))

    def socket(self, name: str) -> Path:
        """Where clients of a server connect."""
        return self.house.root / "run" / "attestd" / "mcp" / f"{name}.sock"

    def start(self, *awaited: str) -> None:
        """Start the daemon; until these servers are served."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DAEMON, str(self.house.root), str(self.state)], cwd=ROOT, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while not all(self.socket(name).exists() for name in awaited):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the daemon did not start: {self.log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the daemon."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    @contextlib.contextmanager
    def client(self, uid: int, name: str, argv: Sequence[str] | None = None) -> Iterator[Client]:
        """A client of some user, connected to a server."""
        words = argv or [PYTHON, "-I", str(self.talker), str(self.socket(name))]
        process = subprocess.Popen(
            ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        client = Client(process)
        try:
            yield client
        finally:
            client.close()


@contextlib.contextmanager
def system_mode() -> Iterator[SystemMode]:
    """A launcher, and a host whose daemon is not started yet."""
    house = House(daemon=0)
    made = SystemMode(house)
    try:
        house.start()
        yield made
    finally:
        made.stop()
        house.stop()
        shutil.rmtree(made.state, ignore_errors=True)
