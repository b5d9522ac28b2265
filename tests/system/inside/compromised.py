"""A daemon that is somebody else's by now, at the launcher's door: run as the daemon's own user. Standard library only.

compromised.py SOCKET PID [NAME]    orders for process PID; says what each came to. With NAME only that honest one.
"""

import array
import json
import os
import socket
import sys

EVIL = (
    b"start\0/bin/sh",
    b"start\0../echo",
    b"start\0echo/../../../bin/sh",
    b"start\0echo\0/bin/sh\0-c\0id",
    b"start\0nosuch",
    b"start\0" + b"a" * 65,
    b"run\0echo",
    b"2000\0/bin/sh\0/\0" + b"3\0sh\0-c\0id\0" + b"0\0LD_PRELOAD=/tmp/evil.so",
)


def order(path, message, pid):
    """One order on a connection of its own; what came back on its line, or how it ended."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.settimeout(10)
    try:
        control.connect(path)
    except OSError as error:
        return f"no connection: {error.strerror}"
    pipes = [os.pipe() for _ in range(3)]
    line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.settimeout(10)
    fds = [pipes[0][0], pipes[1][1], pipes[2][1], far.fileno(), os.pidfd_open(pid)]
    try:
        control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        far.close()
        return line.recv(4096).decode(errors="replace") or "ended"
    except OSError as error:
        return f"ended: {error}"
    finally:
        control.close()


if __name__ == "__main__":
    where, whom, *honest = sys.argv[1:]
    wanted = [b"start\0" + honest[0].encode()] if honest else EVIL
    print(json.dumps([order(where, message, int(whom)) for message in wanted]), flush=True)
