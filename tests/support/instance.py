"""A real attestd for tests: its own directories, its own daemon process, real clients.

``Instance`` runs the installed ``attestd`` in user mode below a short temporary directory. Clients are scripts on
disk (their text makes their identity) that talk newline-delimited JSON over the socket: see ``TALK``. The test
process is named in ``approval.approvers``, so that ``ctl("approve", …)`` works for an ordinary user too; root may
approve anyway.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import machine

SCRIPTS = Path(sys.executable).parent
START_S = 120.0
"""A daemon that waits for a processor has not failed."""
REFUSED = -31403
SETTLE_S = 0.15
"""A script that is as young as the process that runs it is not attestable: it may not be what was loaded."""

TALK = '''\
"""Connect to a socket, then copy lines: standard input to the socket, the socket to standard output. {mark}"""
import os, select, socket, sys

s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
ends = [0, s.fileno()]
while s.fileno() in ends:
    for fd in select.select(ends, [], [])[0]:
        if fd == 0:
            data = os.read(0, 65536)
            if data:
                s.sendall(data)
            else:
                ends.remove(0)
                s.shutdown(socket.SHUT_WR)
        else:
            data = s.recv(65536)
            if not data:
                sys.exit(0)
            os.write(1, data)
'''
"""A client without an SDK. ``mark`` makes another program of it."""

ECHO = '''\
"""A small MCP server over stdio: tools echo, pid, slow; resources file:///a, file:///b; prompt hello. Counts its calls in a file."""
import json, os, sys, time

calls = sys.argv[1] if len(sys.argv) > 1 else os.devnull


def answer(message):
    method, params = message.get("method"), message.get("params") or {}
    if method == "initialize":
        return {"protocolVersion": params.get("protocolVersion", "2025-11-25"), "serverInfo": {"name": "echo", "version": "1"},
                "capabilities": {"tools": {"listChanged": True}, "resources": {}, "prompts": {}}}
    if method == "tools/list":
        return {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in ("echo", "pid", "slow", "big", "die")]}
    if method == "resources/list":
        return {"resources": [{"uri": u, "name": u} for u in ("file:///a", "file:///b")]}
    if method == "prompts/list":
        return {"prompts": [{"name": "hello"}]}
    if method == "tools/call":
        with open(calls, "a") as f:
            f.write(json.dumps(params) + "\\n")
        name, arguments = params.get("name"), params.get("arguments") or {}
        if name == "die":
            os._exit(3)
        if name == "slow":
            time.sleep(float(arguments.get("seconds", 1)))
        text = {"pid": str(os.getpid()), "big": "x" * int(arguments.get("size", 0))}.get(name, json.dumps(arguments))
        return {"content": [{"type": "text", "text": text}]}
    if method == "resources/read":
        return {"contents": [{"uri": params.get("uri"), "text": "secret"}]}
    if method == "prompts/get":
        return {"messages": []}
    return {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)}) + "\\n")
        sys.stdout.flush()
'''


class Instance:
    """One daemon and what belongs to it."""

    def __init__(self, root: Path, *, approvers: Sequence[str] = ()) -> None:
        self.root = root
        self.process: subprocess.Popen[bytes] | None = None
        self.recorder = "/sys/fs/bpf/nothing"
        """Where the daemon looks for the kernel recorder: by default there is none, whatever the machine has."""
        self.process_events = False
        """Whether the daemon follows process events where there is no recorder."""
        self.calls = root / "calls"
        self.scripts = SCRIPTS
        """Where the programs are."""
        self.pass_fds: tuple[int, ...] = ()
        """What the daemon inherits."""
        self.daemons_own: dict[str, str] = {}
        """Variables of the daemon alone."""
        self.environment = {
            "PATH": f"{SCRIPTS}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "LANG": "C.UTF-8",
            "HOME": str(root),
            "XDG_CONFIG_HOME": str(root / "c"),
            "XDG_STATE_HOME": str(root / "s"),
            "XDG_RUNTIME_DIR": str(root / "r"),
        }
        for name in ("c", "s", "r"):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        self.config = root / "c" / "attestd"
        (self.config / "servers.d").mkdir(parents=True, exist_ok=True)
        self.settings = {"approval": {"approvers": list(approvers)}, "limits": {}}

    # -- configuration ----------------------------------------------------------------------------------------------

    def server(self, name: str = "echo", *, command: Sequence[str] | None = None, text: str = "", **keys: Any) -> None:
        """Register a server by file: by default the small echo server."""
        if command is None and not text and not {"socket", "url"} & keys.keys():
            script = self.script("echo_server.py", ECHO)
            command = [sys.executable, str(script), str(self.calls)]
        if not text:
            lines = ["[server]", f'name = "{name}"', f'transport = "{keys.pop("transport", "stdio")}"']
            if command is not None:
                lines.append(f"command = {json.dumps(list(command))}")
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
            text = "\n".join(lines) + "\n"
        (self.config / "servers.d" / f"{name}.toml").write_text(text, encoding="utf-8")

    def write_settings(self) -> None:
        """attestd.toml from ``settings``."""
        lines = []
        for table, values in self.settings.items():
            lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        (self.config / "attestd.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def script(self, name: str, text: str) -> Path:
        """A program on disk."""
        path = self.root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            time.sleep(SETTLE_S)
        return path

    def talker(self, mark: str = "", name: str = "talk.py") -> Path:
        """The plain client; another ``mark`` makes another program."""
        return self.script(name, TALK.replace("{mark}", mark))

    # -- the daemon -------------------------------------------------------------------------------------------------

    def socket(self, server: str = "echo") -> Path:
        """Where clients of ``server`` connect."""
        return self.root / "r" / "attestd" / "mcp" / f"{server}.sock"

    @property
    def control(self) -> Path:
        """The control socket."""
        return self.root / "r" / "attestd" / "control.sock"

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.root / "s" / "attestd"

    def start(self, *, wait: bool = True) -> None:
        """Start the daemon and wait until it serves."""
        self.write_settings()
        log = (self.root / "daemon.log").open("ab")
        events = "--process-events" if self.process_events else "--no-process-events"
        self.process = subprocess.Popen(
            [str(self.scripts / "attestd"), "run", "--user", "--recorder", self.recorder, events],
            env=self.environment | self.daemons_own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=self.pass_fds,
        )
        log.close()
        if wait:
            self.await_started()

    def await_started(self) -> None:
        """Until its own control socket answers: without ``--socket``, attestctl would also ask an attestd of the machine."""
        deadline = time.monotonic() + START_S
        while (
            not self.control.exists() or self.run("attestctl", "--socket", str(self.control), "status").returncode != 0
        ):
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the daemon did not start: {self.log()}")
            time.sleep(0.01)

    def log(self) -> str:
        """What the daemon wrote."""
        return (self.root / "daemon.log").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        """End the daemon in good order; its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the daemon did not stop: {self.log()}") from None
        self.process = None
        return status

    # -- programs ---------------------------------------------------------------------------------------------------

    def command(self, program: str) -> list[str]:
        """The words that run one of our programs."""
        return [str(self.scripts / program)]

    def run(
        self, program: str, *words: str, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run one of our programs to its end."""
        return subprocess.run(
            [*self.command(program), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout,
            check=False,
        )

    def ctl(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        """Attestctl … --json: the objects that it printed; asserts its exit code."""
        result = self.run("attestctl", *words, "--json")
        assert result.returncode == code, f"attestctl {words}: {result.returncode} {result.stdout} {result.stderr}"
        return [json.loads(line) for line in result.stdout.splitlines() if line.strip()]

    @contextlib.contextmanager
    def client(
        self, script: Path | None = None, *, argv: Sequence[str] | None = None, server: str = "echo", **popen: Any
    ) -> Iterator[Client]:
        """A running client; by default the talker on the server's socket."""
        if argv is None:
            argv = [sys.executable, str(script or self.talker()), str(self.socket(server))]
        process = subprocess.Popen(
            list(argv), env=popen.pop("env", self.environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, **popen
        )
        client = Client(process)
        try:
            yield client
        finally:
            client.close()

    def pending(self) -> list[dict[str, Any]]:
        """What waits."""
        return self.ctl("pending")

    def approve(self, code: str, *words: str) -> dict[str, Any]:
        """Approve with every launcher that was present; by default every tool for standing."""
        entry = next(p for p in self.pending() if p["code"] == code)
        launchers = [
            w for each in entry["caller"]["launchers"] for w in ("--launched-by", each["program"] or "unreadable")
        ]
        defaults = (
            () if any(w in ("--tool", "--all-tools", "--resource", "--prompt") for w in words) else ("--all-tools",)
        )
        lifetime = () if "--for" in words else ("--for", "standing")
        return self.ctl("approve", code, *launchers, *defaults, *lifetime, *words, "--yes")[0]

    def grant(
        self, script: Path | None = None, *words: str, server: str = "echo", argv: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Let a client be refused once, and approve it."""
        with self.client(script, server=server, argv=argv) as client:
            refusal = client.initialize()
            return self.approve(refusal["error"]["data"]["code"], *words)

    def executed(self) -> list[dict[str, Any]]:
        """The calls that really reached the echo server."""
        return [json.loads(line) for line in self.calls.read_text().splitlines()] if self.calls.exists() else []

    def records(self, **wanted: str) -> list[dict[str, Any]]:
        """Audit records with these values."""
        return [
            r for r in self.ctl("audit", "tail", "--lines", "10000") if all(r.get(k) == v for k, v in wanted.items())
        ]


class Client:
    """Newline-delimited JSON-RPC to a child process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._next = 0

    def send_line(self, line: bytes) -> None:
        """Raw bytes and a newline."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, message: Mapping[str, Any]) -> None:
        """One message."""
        self.send_line(json.dumps(message).encode())

    def receive(self, timeout: float = 20) -> dict[str, Any] | None:
        """The next message, or None at the end of the stream."""
        import select

        assert self.process.stdout is not None
        if not getattr(self, "_buffer", b"") or b"\n" not in self._buffer:
            self._buffer = getattr(self, "_buffer", b"")
            deadline = time.monotonic() + timeout
            while b"\n" not in self._buffer:
                ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise TimeoutError(f"no message within {timeout} s; have {self._buffer[:200]!r}")
                data = os.read(self.process.stdout.fileno(), 1 << 20)
                if not data:
                    return None
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def answer(self, request_id: Any, timeout: float = 20) -> dict[str, Any]:
        """The answer to one request; pings are answered, notifications skipped."""
        while True:
            message = self.receive(timeout)
            assert message is not None, "the connection was closed"
            if message.get("method") == "ping" and "id" in message:
                self.send({"jsonrpc": "2.0", "id": message["id"], "result": {}})
            elif message.get("id") == request_id and "method" not in message:
                return message

    def request(self, method: str, params: Mapping[str, Any] | None = None, timeout: float = 20) -> dict[str, Any]:
        """A request and its answer."""
        self._next += 1
        self.send({"jsonrpc": "2.0", "id": self._next, "method": method, "params": dict(params or {})})
        return self.answer(self._next, timeout)

    def initialize(self, version: str = "2025-11-25") -> dict[str, Any]:
        """The legacy handshake's first half; the second follows when it was accepted."""
        answer = self.request(
            "initialize",
            {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test client", "version": "1"}},
        )
        if "result" in answer:
            self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def call(self, tool: str = "echo", timeout: float = 20, **arguments: Any) -> dict[str, Any]:
        """tools/call."""
        return self.request("tools/call", {"name": tool, "arguments": arguments}, timeout)

    def close(self) -> None:
        """End it."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def cause(answer: Mapping[str, Any]) -> str:
    """The cause of a refusal, or the empty string if it is not one."""
    data = answer.get("error", {}).get("data") or {}
    return str(data.get("cause", ""))


_APPROVER: list[str] = []


def approver_digest() -> str:
    """Program digest of this test process, as attestd sees it; learned from a daemon once."""
    if not _APPROVER:
        root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
        instance = Instance(root)
        try:
            instance.start()
            found = instance.ctl("inspect", "--pid", str(os.getpid()))[0]
            _APPROVER.append(found["identity"]["program"])
        finally:
            instance.stop()
            shutil.rmtree(root, ignore_errors=True)
    return _APPROVER[0]


def on_the_machine(root: Path) -> Instance:
    """An instance on the machine of this run, which this process may approve for."""
    if machine.chosen == "linux":
        return Instance(root, approvers=[approver_digest()])
    from tests.support.mac_instance import MacInstance

    return MacInstance(root)


@contextlib.contextmanager
def running(
    root: Path,
    *servers: str,
    recorder: str | None = None,
    process_events: bool = False,
    **settings: Mapping[str, Any],
) -> Iterator[Instance]:
    """A started instance with echo servers of these names (default: one called echo)."""
    instance = on_the_machine(root)
    instance.recorder = recorder or instance.recorder
    instance.process_events = process_events
    for table, values in settings.items():
        instance.settings.setdefault(table, {}).update(values)
    for name in servers or ("echo",):
        instance.server(name)
    instance.start()
    try:
        yield instance
    finally:
        if instance.process is not None:
            instance.stop()
