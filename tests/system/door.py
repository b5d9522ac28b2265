"""The command that runs a command inside the virtual machine: ``python -m tests.system.door SOCKET -- WORD…``.

Standard input goes along whole, what comes back is written when the command has ended, whose status is ours. The other
end is ``inside/doorkeeper.py`` at the machine's second serial line.
"""

from __future__ import annotations

import json
import socket
import sys
import time


def main(words: list[str]) -> int:
    """One command."""
    where, _, *command = words
    said = "" if sys.stdin.isatty() else sys.stdin.read()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(where)
        token = time.monotonic_ns()
        line.sendall(json.dumps({"words": command, "said": said, "token": token}).encode() + b"\n")
        for answer in line.makefile("rb"):
            done = json.loads(answer)
            if done["token"] == token:  # not what somebody asked who waited no longer
                sys.stdout.write(done["out"])
                sys.stderr.write(done["err"])
                return int(done["code"])
    print("the virtual machine has ended", file=sys.stderr)
    return 255


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
