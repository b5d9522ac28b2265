"""A daemon inside the test: real directories, store, log, policy and sockets; a launcher that starts nothing; a kernel of
one process, or on macOS its room on a Mac in memory."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from attestd.control.service import ControlCaller
from attestd.daemon.app import Daemon
from attestd.daemon.approvals import Approver
from attestd.daemon.paths import Paths
from attestd.evidence.model import Evidence
from attestd.evidence.protocol import AbsentRecorder
from attestd.evidence.sealing import Sealer
from attestd.grants.approve import Options
from tests.fakes.kernel import OneProcess
from tests.fakes.launcher import FakeLauncher
from tests.support import machine
from tests.support.evidence import evidence_of, python_client, shell, terminal
from tests.support.macs import MacKernel
from tests.support.streams import Far
from tests.support.waiting import until

HOST = "ab" * 16
ROOT = Approver(uid=0, pid=1, display="root", how="root")
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}


def caller_evidence(**facts: Any) -> Evidence:
    """A Python client of this very uid, under a shell in a terminal."""
    uid = os.geteuid()
    return evidence_of(python_client(uid=uid, **facts), shell(uid=uid), terminal(uid=uid))


def paths_below(root: Path, *, system: bool = False) -> Paths:
    """A mode below a short directory."""
    return Paths(config=root / "c", state=root / "s", runtime=root / "r", user_mode=not system)


def server_text(name: str = "time", **keys: Any) -> str:
    """A server file."""
    values: dict[str, Any] = {"name": name, "transport": "stdio", "command": ["/bin/server", "--flag"], **keys}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    return "[server]\n" + "\n".join(lines) + "\n"


class Inside:
    """The daemon and its surroundings. Make it in a running loop; ``close`` it."""

    def __init__(
        self,
        root: Path,
        *servers: str,
        settings: str = "",
        sealer: Sealer | None = None,
        system: bool = False,
    ) -> None:
        """``system``: a system installation without servers, whose configuration is root's: for root."""
        self.sealer = sealer
        self.paths = paths_below(root, system=system)
        self.paths.servers.mkdir(parents=True)
        self.paths.config_file.write_text(settings, encoding="utf-8")
        for text in servers or (() if system else (server_text(),)):
            name = text.split('name = "')[1].split('"')[0]
            (self.paths.servers / f"{name}.toml").write_text(text, encoding="utf-8")
        self.kernel = MacKernel() if machine.chosen == "darwin" else OneProcess(caller_evidence())
        self.launcher = FakeLauncher()
        self.clients: list[Far] = []
        self.daemon = self.start()

    def start(self) -> Daemon:
        """Another daemon on the same directories."""
        return Daemon(
            paths=self.paths,
            kernel=self.kernel,
            recorder=AbsentRecorder(),
            launcher=self.launcher,
            host_id=HOST,
            sealer=self.sealer,
        )

    async def connect(self, server: str = "time") -> Far:
        """A client whose session is open."""
        before = len(self.daemon.sessions)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.paths.sockets / f"{server}.sock"))
        sock.send(b"\n")  # the first byte decides the framing; an empty line says nothing else
        self.clients.append(Far(sock))
        await until(lambda: len(self.daemon.sessions) == before + 1)
        return self.clients[-1]

    async def ask(self, client: Far, method: str, params: Any = None, message_id: Any = 1) -> Any:
        """A request and its answer, which must come from attestd."""
        await client.send({"jsonrpc": "2.0", "id": message_id, "method": method, "params": params or {}})
        return await client.message()

    async def refused(self, server: str = "time") -> tuple[Far, str]:
        """A client that was refused, and the code."""
        client = await self.connect(server)
        answer = await self.ask(client, "initialize", {"protocolVersion": "2025-11-25"})
        return client, str(answer["error"]["data"]["code"])

    async def granted(self, server: str = "time", **options: Any) -> Far:
        """A client with a grant for everything, initialised, and its server on the other side."""
        client, code = await self.refused(server)
        wanted = {"tools": ("*",), "lifetime": "standing", **options}
        self.daemon.approvals.approve(code, Options(**wanted), ROOT)
        await self.handshake(client)
        return client

    async def handshake(self, client: Far) -> None:
        """Legacy, through to the server."""
        before = len(self.launcher.backends)
        await client.send(
            {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
        )
        await until(lambda: len(self.launcher.backends) > before)
        far = self.launcher.backends[-1].far
        await far.message()
        await far.send({"jsonrpc": "2.0", "id": 0, "result": HELLO})
        assert (await client.message())["id"] == 0

    async def close(self) -> None:
        """End everything in order."""
        await self.daemon.close()
        for client in self.clients:
            client.close()
        await until(lambda: self.kernel.open == 0)
        if isinstance(self.kernel, MacKernel):
            self.kernel.end()


def control_caller(uid: int = 0, *, how: str = "root", pid: int = 1, why_not: str = "") -> ControlCaller[Any]:
    """A caller on the control socket."""
    return ControlCaller(uid=uid, pid=pid, result=None, how=how, display=f"uid {uid}", why_not=why_not)


def now_ns() -> int:
    """The time."""
    return time.time_ns()
