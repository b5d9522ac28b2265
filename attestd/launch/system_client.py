"""The daemon's side of the launcher of system mode: it says a server's name and whom it is for, and nothing else.

Rules
- The launcher's socket belongs to systemd, which made it as root: whoever else listens there is not talked to.
- The connection is made by the first start and again by the next one after it has ended; its servers end with it.
"""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

from attestd.launch.client import LauncherClient
from attestd.launch.protocol import Command, LaunchError

if sys.platform != "linux":
    raise ImportError("cannot launch servers on this platform: the launcher needs Linux")

CREDENTIALS = struct.Struct("=iII")
HINT = "see: systemctl status attestd-launcher.socket"


class SystemLauncher(LauncherClient):
    """Implements ``Launcher`` with the privileged launcher of this host."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def _ordered(self, command: Command) -> tuple[str, bytes]:
        """Command, environment and sandbox are read by the launcher itself."""
        return command.name, b"start\0" + command.name.encode()

    def _connected(self) -> socket.socket:
        if self._control is None:
            control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                control.setblocking(False)  # noqa: FBT003 - the signature of the standard library
                self._connect(control)
            except BaseException:
                control.close()
                raise
            self._control = control
        return self._control

    def _connect(self, control: socket.socket) -> None:
        try:
            control.connect(str(self._path))
            found = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        except OSError as error:
            reason = error.strerror or str(error)
            raise LaunchError(f"cannot reach the launcher on {self._path}: {reason}", hint=HINT) from error
        _pid, uid, _gid = CREDENTIALS.unpack(found)
        if uid != 0:
            raise LaunchError(f"cannot start servers: uid {uid} listens on {self._path}, expected root")

    def _drop(self) -> None:
        self._hang_up()

    async def _ended(self) -> None:
        """The launcher lives on, for the next daemon."""
        self._hang_up()
