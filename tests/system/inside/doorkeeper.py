"""Runs commands for whoever is at the second serial line, in the virtual machine of the system test. Standard library only.

A line of JSON each way: {"words", "said", "token"}, and {"code", "out", "err", "token"} when the command has ended. The first
console is told when it begins.
"""

import json
import os
import subprocess
import tty
from pathlib import Path

LINE = "/dev/ttyS1"
CONSOLE = "/dev/ttyS0"
READY = "the doorkeeper is at the door"


def serve():
    """For ever, one command after the other."""
    fd = os.open(LINE, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd)
    Path(CONSOLE).write_text(f"{READY}\n")
    with os.fdopen(fd, "rb+", buffering=0) as line:
        waiting = b""
        while True:
            while b"\n" not in waiting:
                waiting += line.read(4096)
            asked, _, waiting = waiting.partition(b"\n")
            order = json.loads(asked)
            done = subprocess.run(order["words"], input=order["said"], capture_output=True, text=True, check=False)
            answer = {"token": order["token"], "code": done.returncode, "out": done.stdout, "err": done.stderr}
            said = json.dumps(answer).encode() + b"\n"
            while said:
                said = said[line.write(said) :]


if __name__ == "__main__":
    serve()
