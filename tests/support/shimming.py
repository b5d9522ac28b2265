"""A temporary installation (``bin/attestd`` beside ``bin/attestd-connect``) for the tests of the shim.

``bin/attestd`` here only binds and listens, because that is what the kernel remembers as the peer, and hands the
listening socket to the test, which then plays the daemon itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

LISTENER = """#!{python}
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b"."], [listener.fileno()])
listener.close()
sys.stdin.read()
"""
SHIM = """#!{python}
import sys
from attestd.shim import main
sys.exit(main())
"""
REPOSITORY = Path(__file__).resolve().parents[2]


class Installation:
    """One ``bin`` directory and one runtime directory; closing it ends what was started."""

    def __init__(self, root: Path, ended: ExitStack) -> None:
        self.bin = root / "bin"
        self.runtime = root / "run"
        self.mcp = self.runtime / "attestd" / "mcp"
        self.bin.mkdir(mode=0o755)
        self.mcp.mkdir(parents=True, mode=0o700)
        for directory in (self.bin, self.runtime, self.mcp.parent, self.mcp):
            directory.chmod(0o700)
        for name, text in (("attestd", LISTENER), ("attestd-connect", SHIM)):
            self.script(name, text)
        self.socket = self.mcp / "time.sock"
        self._ended = ended

    def script(self, name: str, text: str) -> Path:
        """An executable script beside the others."""
        path = self.bin / name
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
        return path

    def listen(self, argv: Sequence[str] = ()) -> socket.socket:
        """Have ``bin/attestd``, or another command, listen; returns the listening socket."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = subprocess.Popen(
                [*(argv or (str(self.bin / "attestd"),)), str(self.socket), str(theirs.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
            )
            self._ended.callback(_end, process)
            theirs.close()
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        return self._ended.enter_context(socket.socket(fileno=fds[0]))

    def connect(
        self,
        *words: str,
        stdin: int = subprocess.PIPE,
        stdout: int = subprocess.PIPE,
        wrapper: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start the shim as a client would."""
        process = subprocess.Popen(
            [*wrapper, str(self.bin / "attestd-connect"), *(words or ("time",))],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, "XDG_RUNTIME_DIR": str(self.runtime), "PYTHONPATH": str(REPOSITORY)},
        )
        self._ended.callback(_end, process)
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill and reap."""
    process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None and not stream.closed:
            try:
                stream.close()
            except BrokenPipeError:
                continue
    process.wait()
