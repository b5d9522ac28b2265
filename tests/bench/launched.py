"""A call to a server that the launcher of system mode started, in units of the same call in user mode.

Both daemons, both launchers and the client run side by side; server and policy are the same for both. For root.
"""

from __future__ import annotations

import os
import statistics

from tests.bench.report import Figure
from tests.bench.stage import call_blocks, instance, one_cpu
from tests.support.system_launcher import PYTHON
from tests.support.system_mode import EVERYBODY, system_mode

NAME = "call to a server of the system launcher ÷ the same in user mode"
SERVER = '''\
"""An MCP server over stdio, as fast as Python makes it."""
import json, os, sys

INFO = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "bench", "version": "1"}}
SMALL = {"content": [{"type": "text", "text": "hello"}], "isError": False}
for line in sys.stdin.buffer:
    message = json.loads(line)
    if "id" in message and "method" in message:
        result = INFO if message["method"] == "initialize" else SMALL
        os.write(1, b'{"jsonrpc":"2.0","id":%d,"result":%s}\\n' % (message["id"], json.dumps(result).encode()))
'''


def measure(*, quick: bool) -> list[Figure]:
    """One client holds a connection to each daemon and calls on them block by block in turn."""
    if os.geteuid() != 0:
        note = "the launcher of system mode needs root"
        return [Figure(name=NAME, value=None, unit="×", limit=1.05, note=note, skipped=True)]
    blocks, calls = (30, 100) if quick else (120, 200)
    with one_cpu(), instance() as made, system_mode() as host:
        script = host.house.root / "bench_server.py"
        script.write_text(SERVER, encoding="utf-8")
        command = [PYTHON, "-I", str(script)]
        made.server("bench", command=command)
        policies = made.config / "policy.d"
        policies.mkdir()
        (policies / "everybody.cedar").write_text(EVERYBODY, encoding="utf-8")
        host.register("bench", command=command, run_as="isolated")
        made.start()
        host.start("bench")
        user, system = call_blocks(made, blocks, calls, made.socket("bench"), host.socket("bench"))
    parts = [statistics.median(column) for column in (user, system)]
    return [
        Figure(
            name=NAME,
            value=parts[1] / parts[0],
            unit="×",
            limit=1.05,
            parts={"user mode µs": parts[0], "system mode µs": parts[1]},
            note="all on one CPU",
            rounds=blocks,
        )
    ]
