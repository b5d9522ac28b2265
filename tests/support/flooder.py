"""A client that asks too much. Usage: flooder.py SOCKET HOW NUMBER; says ``ready``, begins when a line comes.

HOW: ``line`` one line of NUMBER bytes; ``deep`` NUMBER nested arrays; ``open`` NUMBER requests that the server does
not answer; ``junk`` NUMBER lines that are no messages; ``deaf`` the same, and ``greedy`` NUMBER calls for a megabyte,
without ever reading; ``drip`` a call at one byte for each hundredth of a second. Prints the number of lines that came
back.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

BLOCK = 1 << 20
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "flooder", "version": "1"}}


def message(method: str, number: int, params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


def flood(how: str, number: int) -> Iterator[bytes]:
    match how:
        case "line":
            yield b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"'
            yield from (b"x" * BLOCK for _ in range(number // BLOCK))
            yield b'"}}\n'
        case "deep":
            yield b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"x":'
            yield b"[" * number + b"]" * number + b"}}}\n"
        case "open":
            yield from (message("tools/call", n, {"name": "hang", "arguments": {}}) for n in range(1, number + 1))
        case "greedy":
            yield from (
                message("tools/call", n, {"name": "big", "arguments": {"size": 1 << 20}}) for n in range(1, number + 1)
            )
        case "drip":
            for byte in message("tools/call", 1, {"name": "echo", "arguments": {"x": "y" * number}}):
                time.sleep(0.01)
                yield bytes([byte])
        case _:
            yield from (b"{}\n" for _ in range(number))


def blocks(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        held += piece
        if len(held) >= size:
            yield held
            held = b""
    yield held


def main() -> None:
    path, how, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    answers = sock.makefile("rb")
    sock.sendall(message("initialize", 0, HELLO))
    if b"result" not in answers.readline():
        sys.exit("no grant")
    print("ready", flush=True)
    sys.stdin.readline()
    lines = 0
    deaf = how in ("deaf", "greedy")

    def listen() -> None:
        nonlocal lines
        while answers.readline():
            lines += 1

    listener = threading.Thread(target=listen, daemon=True)
    if not deaf:
        listener.start()
    sock.settimeout(5.0 if deaf else None)
    try:
        for block in blocks(flood(how, number), 1 if how == "drip" else 1 << 16):
            sock.sendall(block)
    except TimeoutError:
        with contextlib.suppress(BrokenPipeError):
            os.write(1, b"blocked\n")
    if deaf:
        sys.stdin.readline()
        return
    if how != "open":
        sock.shutdown(socket.SHUT_WR)
        listener.join()
    else:
        while lines < number - 256:
            time.sleep(0.05)
    print(lines, flush=True)


if __name__ == "__main__":
    main()
