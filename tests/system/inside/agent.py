"""An MCP client of one user, in the system under test: it starts the shim as any client does. Standard library only.

agent.py once SERVER TOOL ARGUMENTS            one session, one call; prints what came
agent.py load SERVER TOOL ARGUMENTS SECONDS    calls without a pause; a session that ended is opened again
agent.py hold SERVER TOOL ARGUMENTS            one session; a call for each line of its input, what came for each
agent.py soak SERVER TOOL ARGUMENTS N M K L    N sessions of M calls each without the shim, K for each process, L processes at once
agent.py shell WORDS…                          runs a command as an agent's shell tool does
"""

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

OWN = Path("~/.local/bin/attestd-connect").expanduser()
CONNECT = [shutil.which("attestd-connect") or str(OWN)]
"""The machine's, or where it has none, the user's own."""
PATIENCE_S = 30.0


class EndedError(Exception):
    """The session is over, and the call may be sent again in another one."""


class Session:
    """One session with one server, through the shim, or over the server's own socket."""

    def __init__(self, server, direct=False):
        self._number = 0
        if direct:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(f"/run/attestd/mcp/{server}.sock")
            self._in, self._out = sock.makefile("rb"), sock.makefile("wb")
            self.close = sock.close
        else:
            shim = subprocess.Popen(
                [*CONNECT, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._in, self._out = shim.stdout, shim.stdin
            self._shim = shim
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "agent", "version": "1"}}
        self.hello = self.ask("initialize", hello)
        if "result" in self.hello:
            self._say({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def ask(self, method, params):
        """The whole answer to one request. Raises EndedError."""
        self._number += 1
        self._say({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        while True:
            line = self._in.readline()
            if not line:
                raise EndedError("end of stream")
            message = json.loads(line)
            if message.get("method") == "ping":
                self._say({"jsonrpc": "2.0", "id": message["id"], "result": {}})
            elif message.get("id") in (self._number, None) and "method" not in message:
                return message

    def call(self, tool, arguments):
        """What one call came to: {"ok", "text", "data"}. Raises EndedError."""
        answer = (
            self.ask("tools/call", {"name": tool, "arguments": arguments}) if "result" in self.hello else self.hello
        )
        return seen(answer)

    def close(self):
        """The client ends."""
        with contextlib.suppress(BrokenPipeError):  # it has ended first, with bytes of ours unsent
            self._out.close()
        self._shim.wait()
        self._in.close()

    def _say(self, message):
        try:
            self._out.write(json.dumps(message).encode() + b"\n")
            self._out.flush()
        except BrokenPipeError as error:
            raise EndedError("broken pipe") from error


def seen(answer):
    """An answer as the harness reads it; a refusal of attestd is an error."""
    if "error" in answer:
        error = answer["error"]
        return {"ok": False, "text": error["message"], "data": error.get("data") or {}}
    result = answer["result"]
    text = "".join(item.get("text", "") for item in result.get("content", ()))
    return {"ok": not result.get("isError", False), "text": text, "data": {}}


def show(value):
    """One line for the harness."""
    print(json.dumps(value), flush=True)


def once(server, tool, arguments):
    session = Session(server)
    show(session.call(tool, json.loads(arguments)))
    session.close()


def when(server, tool, arguments):
    show({"ok": True})
    for _ in sys.stdin:
        once(server, tool, arguments)


def hold(server, tool, arguments):
    session = Session(server)
    show({"ok": "result" in session.hello})
    for _ in sys.stdin:
        try:
            show(session.call(tool, json.loads(arguments)))
        except EndedError as ended:
            show({"ok": False, "text": str(ended), "data": {"cause": "ended"}})


def load(server, tool, arguments):
    """A call is lost if it has no good answer after many sessions, or is refused for another reason than the restart."""
    calls = lost = sessions = 0
    longest = 0.0
    why = ""
    session = None
    while not select.select([sys.stdin], [], [], 0)[0]:
        began = time.monotonic()
        while True:
            try:
                if session is None:
                    session = Session(server)
                    sessions += 1
                answer = session.call(tool, json.loads(arguments))
            except EndedError:
                answer = {"ok": False, "text": "the session ended", "data": {"cause": "ended"}}
            if answer["ok"]:
                calls += 1
                break
            if session is not None:
                session.close()
            session = None
            cause = answer["data"].get("cause")
            if cause not in ("ended", "shutting_down", "daemon_unreachable") or time.monotonic() > began + PATIENCE_S:
                lost += 1
                why = answer["text"]
                break
        longest = max(longest, time.monotonic() - began)
    show({"calls": calls, "lost": lost, "sessions": sessions, "longest_s": round(longest, 3), "why": why})


def soak(server, tool, arguments, sessions, calls, each, at_once):
    """Processes that each have some sessions and end, several at a time; what all of them came to."""
    params = json.loads(arguments)
    counts = [int(each)] * (int(sessions) // int(each)) + [int(sessions) % int(each)]
    waiting = [count for count in counts if count]
    total = {"calls": 0, "refused": 0, "processes": len(waiting), "why": "", "data": {}}
    running = {}
    while waiting or running:
        while waiting and len(running) < int(at_once):
            reads, writes = os.pipe()
            count = waiting.pop()
            pid = os.fork()
            if pid == 0:
                os.close(reads)
                os.write(writes, json.dumps(soaked(server, tool, params, count, int(calls))).encode())
                os._exit(0)
            os.close(writes)
            running[pid] = reads
        pid, status = os.wait()
        with os.fdopen(running.pop(pid), "rb") as said:
            found = json.loads(said.read() or b'{"calls": 0, "refused": 1, "why": "a client died", "data": {}}')
        total["calls"] += found["calls"]
        total["refused"] += found["refused"] + (status != 0)
        if found["refused"]:
            total |= {"why": found["why"], "data": found["data"]}
    show(total)


def soaked(server, tool, params, sessions, calls):
    """One process's sessions, one after the other."""
    good = bad = 0
    last = {"text": "", "data": {}}
    for _ in range(sessions):
        try:
            session = Session(server, direct=True)
            for _ in range(calls):
                answer = session.call(tool, params)
                good += answer["ok"]
                if not answer["ok"]:
                    bad, last = bad + 1, answer
            session.close()
        except (EndedError, OSError) as error:
            bad, last = bad + 1, {"text": repr(error), "data": {}}
    return {"calls": good, "refused": bad, "why": last["text"], "data": last["data"]}


def shell(*words):
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    show({"ok": done.returncode == 0, "code": done.returncode, "text": done.stdout + done.stderr})


if __name__ == "__main__":
    {"once": once, "when": when, "hold": hold, "load": load, "soak": soak, "shell": shell}[sys.argv[1]](*sys.argv[2:])
