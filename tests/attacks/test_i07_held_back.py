"""I7 over HTTP: a call that waits unread, because its writer reads no answers, until the granted program has a session."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support import machine
from tests.support.attackers import until
from tests.support.http_client import Booth, program, started

pytestmark = pytest.mark.attack("I7")

HOLDER = '''\
"""Runs inside the granted program by its search path: fills a connection, leaves a call in it, begins anew without.

A twin reads the answers when it is told; only then has the daemon room for more of them, and reads the call.
"""
import os, socket, sys

place, directory = os.environ["HOLD_PLACE"], os.environ.pop("PYTHONPATH")
junk, call = (open(f"{directory}/{name}", "rb").read() for name in ("junk", "call"))
s = socket.socket(socket.AF_UNIX)
s.connect(place)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # it must take what the daemon leaves unread, and does not wait
s.sendall(junk)
unread = ((1 << 20) + (1 << 18)) // len(s.recv(1 << 16))
ahead = (3 << 16) // len(junk)  # what the daemon reads before it sees that there is no room for answers, and more
s.sendall(junk * (unread + ahead) + call)
if os.fork() == 0:
    os.read(os.open(f"{directory}/go", os.O_RDONLY), 1)
    while s.recv(1 << 16):
        pass
    os._exit(0)
s.set_inheritable(True)
os.execv(sys.executable, [sys.executable, "-u", os.environ["HOLD_PROGRAM"]])
'''


def test_a_call_of_an_earlier_image_in_a_connection_that_stayed(http: Booth):
    """What ran there then was started with a search path, and is refused; what runs now is granted, and has a session.
    The call gets no part of that: its connection has outlived what it was attested for."""
    place, directory = http.at("unix"), http.instance.root / "hold"
    directory.mkdir()
    http.instance.script("hold/sitecustomize.py", HOLDER)
    os.mkfifo(directory / "go")
    (directory / "call").write_bytes(http.request("held", place))
    body = {"jsonrpc": "2.0", "id": "\1" * 1024, "method": "tools/call", "params": {"name": "echo"}}
    content = json.dumps(body).encode()  # its id comes back with the refusal: few of them fill the connection
    head = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    (directory / "junk").write_bytes(head.encode() + b"\r\n\r\n" + content)
    script = program(http.instance)
    words = ["env", f"PYTHONPATH={directory}", f"HOLD_PLACE={place}", f"HOLD_PROGRAM={script}"]
    refused, ended = http.recorded("search_path"), http.recorded("image_changed")
    with started(http.instance, [*words, sys.executable, "-u", str(script)], place) as caller:
        until(lambda: http.recorded("image_changed") > ended, "the end of the earlier session")
        assert b"PYTHONPATH" not in Path(f"/proc/{caller.process.pid}/environ").read_bytes()
        assert http.recorded("search_path") > refused
        caller.initialize()  # proves the connection, on which a call without a session is served then
        caller.session = ""
        assert "result" in caller.call(mark="heldown").json
        ended = http.recorded("image_changed")
        (directory / "go").write_bytes(b".")
        if machine.chosen == "linux":  # macOS tells of the exec itself, and the connection has ended with it
            until(lambda: http.recorded("image_changed") > ended, "the refusal")
        assert "result" in caller.call(mark="heldlater").json
    assert {"heldown", "heldlater"} <= http.marks()
    assert "held" not in http.marks()
