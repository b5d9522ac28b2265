"""Serves a stdio server on a Unix socket: one process for each connection. Usage: unix_server.py SOCKET COMMAND..."""

from __future__ import annotations

import socket
import subprocess
import sys

listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(16)
print("ready", flush=True)
started = []
try:
    while True:
        connection, _ = listener.accept()
        with connection:
            started.append(subprocess.Popen(sys.argv[2:], stdin=connection, stdout=connection))
finally:
    for each in started:
        each.kill()
        each.wait()
