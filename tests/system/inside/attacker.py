"""What a hostile program of an ordinary user does, in the system under test. Standard library only.

attacker.py flood SOCKET N        opens N connections and holds them until its input ends; says how many were taken
attacker.py become SOCKET UID     connects, becomes another user, and only then says what it wants
attacker.py impostor SOCKET       listens where attestd should, and says what it hears until its input ends
attacker.py open PATH…            tries to write each file; says which could be opened
attacker.py ask SOCKET            one call, as whatever program this file is; says what came
attacker.py strangers SOCKET DIR N    makes N programs of this one, in DIR, and has each of them refused; says how many were
attacker.py refused SOCKET N M    is refused N times in one session, then in each of M sessions of its own; says how often
"""

import json
import os
import selectors
import socket
import subprocess
import sys
import time
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
    show(told(sock))


def ask(path):
    """One call."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    show(told(sock))


def told(sock):
    """What a first call comes to."""
    lines = sock.makefile("rwb")
    last = {"error": {"message": "end of stream", "data": {"cause": "ended"}}}
    for message in (HELLO, CALL):
        try:
            lines.write(json.dumps(message).encode() + b"\n")
            lines.flush()
            line = lines.readline()
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if not line:
            break
        last = json.loads(line)
        if "error" in last:
            break
    error = last.get("error") or {"message": "", "data": {}}
    return {"ok": "error" not in last, "text": error["message"], "data": error.get("data") or {}}


def strangers(path, place, number):
    """Each is a program that nobody has seen: its text is its own."""
    show({"begins": True})
    text = Path(__file__).read_text()
    Path(place).mkdir()
    programs = [Path(place) / f"stranger-{each}.py" for each in range(int(number))]
    for each, program in enumerate(programs):
        program.write_text(f"{text}# {each}\n")
    time.sleep(0.1)  # a program that is younger than its process is none
    codes = set()
    for program in programs:
        command = [sys.executable, "-I", str(program), "ask", path]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        codes.add(json.loads(said)["data"].get("code"))
    show({"refused": int(number), "codes": len(codes)})


def refused(path, number, sessions):
    """The same refusal again and again, in one session and in ever new ones."""
    show({"begins": True})
    told_no = 0
    for often in [int(number)] + [1] * int(sessions):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            lines = sock.makefile("rwb")
            for each in range(often):
                lines.write(json.dumps({**HELLO, "id": each}).encode() + b"\n")
                lines.flush()
                told_no += json.loads(lines.readline())["error"]["data"]["cause"] == "no_grant"
    show({"refused": told_no})


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
    modes = {"flood": flood, "become": become, "impostor": impostor, "open": opened}
    modes |= {"ask": ask, "strangers": strangers, "refused": refused}
    modes[sys.argv[1]](*sys.argv[2:])
