"""A small MCP server over stdio, for what the real ones are too slow or too polite for. Standard library only.

Tools: echo; where, who and where it runs, and what it can see; slow, an answer after some seconds.
"""

import json
import os
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "where", "slow")]


def writes():
    """Whether it can write where everybody may."""
    try:
        with tempfile.NamedTemporaryFile(dir="/tmp"):
            return True
    except OSError:
        return False


def loopback():
    """Whether it reaches this machine's own address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("127.0.0.1", 9))
        except OSError:
            return False
    return True


def where():
    """What a server can say of itself."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "cwd": str(Path.cwd()),
        "env": sorted(os.environ),
        "fds": sorted(int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.exists()),
        "no_new_privs": int(status["NoNewPrivs"]),
        "cap_eff": status["CapEff"].strip(),
        "cap_bnd": status["CapBnd"].strip(),
        "loopback": loopback(),
        "writes": writes(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "cgroup": Path("/proc/self/cgroup").read_text().strip(),
    }


def result(method, params):
    """The result of one request."""
    if method == "initialize":
        return {
            "protocolVersion": params.get("protocolVersion", "2025-06-18"),
            "serverInfo": {"name": "echo", "version": "1"},
            "capabilities": {"tools": {}},
        }
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        arguments = params.get("arguments") or {}
        if params.get("name") == "slow":
            time.sleep(float(arguments.get("seconds", 1)))
        text = where() if params.get("name") == "where" else arguments
        return {"content": [{"type": "text", "text": json.dumps(text)}]}
    return {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        answer = {
            "jsonrpc": "2.0",
            "id": message["id"],
            "result": result(message["method"], message.get("params") or {}),
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
