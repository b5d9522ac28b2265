"""A server of one protocol era, made of the SDK's server for both: one_era.py legacy|modern COMMAND...

Stands between standard input and output and the server, and answers what opens the other era as a server of one era
would: ``server/discover`` with "method not found", ``initialize`` with "unsupported protocol version". With ``quiet``
instead of ``legacy`` it never answers server/discover, as some servers do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading

ERRORS = {
    "legacy": ("server/discover", {"code": -32601, "message": "Method not found"}),
    "quiet": ("server/discover", None),
    "modern": (
        "initialize",
        {"code": -32022, "message": "Unsupported", "data": {"supported": ["2026-07-28"], "requested": "2025-11-25"}},
    ),
}


def main(era: str, *command: str) -> None:
    """Copy lines until standard input ends."""
    refused, error = ERRORS[era]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    lock = threading.Lock()
    source = child.stdout

    def back() -> None:
        for line in source:
            with lock:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()

    thread = threading.Thread(target=back)
    thread.start()
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message.get("method") != refused:
            child.stdin.write(line)
            child.stdin.flush()
        elif error is not None:
            with lock:
                sys.stdout.buffer.write(
                    json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode() + b"\n"
                )
                sys.stdout.buffer.flush()
    child.stdin.close()
    thread.join()
    child.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
