"""What a hostile program of an ordinary user does, in the system under test. Standard library only.

attacker.py flood SOCKET N        opens N connections and holds them until its input ends; says how many were taken
attacker.py become SOCKET UID     connects, becomes another user, and only then says what it wants
attacker.py impostor SOCKET       listens where attestd should, and says what it hears until its input ends
attacker.py open PATH…            tries to write each file; says which could be opened
"""

import json
import os
import selectors
import socket
import sys
from pathlib import Path

CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
}


def show(value):
    """One line for the harness."""
    print(json.dumps(value), flush=True)


def flood(path, number):
    """Connections that say nothing."""
    held = []
    for _ in range(int(number)):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            break
        held.append(sock)
    show({"open": len(held)})
    sys.stdin.read()


def become(path, uid):
    """The socket's credentials stay those of before."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
    lines = sock.makefile("rwb")
    answers = []
    for message in (HELLO, CALL):
        lines.write(json.dumps(message).encode() + b"\n")
        lines.flush()
        line = lines.readline()
        if not line:
            break
        answers.append(json.loads(line))
        if "error" in answers[-1]:
            break
    last = answers[-1] if answers else {"error": {"message": "end of stream", "data": {"cause": "ended"}}}
    error = last.get("error") or {"message": "", "data": {}}
    show({"ok": "error" not in last, "text": error["message"], "data": error.get("data") or {}})


def impostor(path):
    """Answers nothing; what it hears is what it should never have been told."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    show({"listening": True})
    heard = b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ)
        waiting.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fileobj is listener:
                    waiting.register(listener.accept()[0], selectors.EVENT_READ)
                elif key.fileobj is sys.stdin:
                    place.unlink()
                    show({"heard": heard.decode(errors="replace")})
                    return
                else:
                    said = key.fileobj.recv(4096)
                    heard += said
                    if not said:
                        waiting.unregister(key.fileobj)


def opened(*paths):
    """As its user: nothing is written, only asked for."""
    could = []
    for path in paths:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
        except OSError:
            continue
        could.append(path)
    show({"opened": could})


if __name__ == "__main__":
    {"flood": flood, "become": become, "impostor": impostor, "open": opened}[sys.argv[1]](*sys.argv[2:])
