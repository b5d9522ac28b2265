"""A small MCP server, for what the real ones are too slow or too polite for. Standard library only.

echo                 over stdio
echo --unix PATH     on a Unix socket that whoever gets at it may use
echo --http PORT     Streamable HTTP on this machine's loopback address

Tools: echo; where, who and where it runs, and what it can see; slow, an answer after some seconds; files, what of all that
can be done to files it may do in a directory; hog, how a child of it ended that took so many MiB of memory.
"""

import json
import os
import resource
import socket
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "where", "slow", "files", "hog")]


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
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "cgroup": Path("/proc/self/cgroup").read_text().strip(),
    }


def files(place):
    """What of everything that can be done to files works in a directory, which has a file ``kept`` and an empty one, ``spare``.

    Whatever works is undone, so that it can be asked again.
    """
    here = Path(place)
    kept, spare, new = here / "kept", here / "spare", here / "new"
    tries = {
        "list": lambda: list(here.iterdir()),
        "read": kept.read_text,
        "write": lambda: os.close(os.open(kept, os.O_WRONLY | os.O_APPEND)),
        "truncate": lambda: os.truncate(spare, 0),
        "make": lambda: (new.touch(exist_ok=False), new.unlink()),
        "make directory": lambda: (new.mkdir(), new.rmdir()),
        "make link": lambda: (new.symlink_to("kept"), new.unlink()),
        "make second name": lambda: (new.hardlink_to(kept), new.unlink()),
        "make socket": lambda: (socket.socket(socket.AF_UNIX).bind(str(new)), new.unlink()),
        "make fifo": lambda: (os.mkfifo(new), new.unlink()),
        "move": lambda: (spare.rename(new), new.rename(spare)),
        "remove": lambda: (spare.unlink(), spare.touch()),
    }
    worked = {}
    for name, attempt in tries.items():
        try:
            attempt()
            worked[name] = ""
        except OSError as error:
            worked[name] = error.strerror
    return worked


def hog(mib):
    """How a child ended that uses that much memory: the server itself takes next to none."""
    child = os.fork()
    if child == 0:
        taken = [bytearray(os.urandom(1 << 20)) for _ in range(mib)]
        os._exit(len(taken) != mib)
    return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}


def called(name, arguments):
    """What a tool says."""
    if name == "slow":
        time.sleep(float(arguments.get("seconds", 1)))
    if name == "where":
        return where()
    if name == "files":
        return files(arguments["place"])
    if name == "hog":
        return hog(int(arguments["mib"]))
    return arguments


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
        text = called(params.get("name"), params.get("arguments") or {})
        return {"content": [{"type": "text", "text": json.dumps(text)}]}
    return {}


def answered(line):
    """The answer to one message, as it is sent; empty: it wants none."""
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        return b""
    came = result(message["method"], message.get("params") or {})
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": came}).encode()


def over_stdio():
    for line in sys.stdin.buffer:
        answer = answered(line)
        if answer:
            sys.stdout.buffer.write(answer + b"\n")
            sys.stdout.buffer.flush()


class OnSocket(socketserver.StreamRequestHandler):
    """One session."""

    def handle(self):
        for line in self.rfile:
            answer = answered(line)
            if answer:
                self.wfile.write(answer + b"\n")


class OverHttp(BaseHTTPRequestHandler):
    """One exchange; there is no stream of the server's own."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.say(answered(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_GET(self):
        self.say(b"", 405)

    def do_DELETE(self):
        self.do_GET()

    def say(self, answer, status=0):
        self.send_response(status or (200 if answer else 202))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        """Nothing."""


if __name__ == "__main__":
    how, where_to = sys.argv[1:3] if len(sys.argv) > 2 else ("", "")
    if how == "--unix":
        os.umask(0)
        socketserver.ThreadingUnixStreamServer(where_to, OnSocket).serve_forever()
    elif how == "--http":
        ThreadingHTTPServer(("127.0.0.1", int(where_to)), OverHttp).serve_forever()
    else:
        over_stdio()
