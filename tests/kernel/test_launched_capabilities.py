"""A started server has none of the daemon's capabilities."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

pytestmark = pytest.mark.root
STARTER = """
import asyncio, os, sys
sys.path[:0] = sys.argv[1:]
from attestd.launch.client import ProcessLauncher
from attestd.launch.protocol import Command

async def main():
    launcher = ProcessLauncher()
    source = "print([line for line in open('/proc/self/status') if line.startswith(('CapPrm', 'CapEff', 'CapAmb'))])"
    command = Command(argv=(sys.executable, "-I", "-c", source), env=(), cwd="/")
    backend = await launcher.start(command, lambda _: None)
    os.set_blocking(backend.stdout_fd, True)
    data = await asyncio.get_running_loop().run_in_executor(None, os.read, backend.stdout_fd, 10000)
    print([line for line in open('/proc/self/status') if line.startswith('CapAmb')], data.decode())
    backend.stop()
    await launcher.close()

asyncio.run(main())
"""


def test_ambient_capabilities_end_at_the_launcher():
    """The daemon may have NET_ADMIN to seal with; a server that had it could unseal."""
    root = Path(__file__).parents[2]
    packages = str(Path(msgspec.__file__).parents[1])
    user = ["setpriv", "--reuid=60001", "--regid=60001", "--clear-groups"]
    words = [
        *user,
        "--inh-caps=+net_admin",
        "--ambient-caps=+net_admin",
        "--",
        "/usr/bin/python3",
        "-c",
        STARTER,
        str(root),
        packages,
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env={"HOME": "/"}, cwd="/")
    assert done.returncode == 0, done.stderr
    ours, theirs = done.stdout.split("] [")
    assert int(ours.split("\\t")[1].split("\\n")[0], 16) == 1 << 12
    assert [int(each.split("\\n")[0], 16) for each in theirs.split("\\t")[1:]] == [0, 0, 0]
