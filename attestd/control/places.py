"""Where sockets lie when nobody says so, on each platform. Standard library only, and little of it, for the shim."""

from __future__ import annotations

import sys


def user_runtime(uid: int) -> str:
    """The directory for the sockets of one user, where ``XDG_RUNTIME_DIR`` is not set: clients start the shim without.

    On macOS ``~/.local/run``: the user's temporary directory is swept, and a socket's path has 103 bytes at most.
    """
    if sys.platform == "darwin":
        import pwd  # noqa: PLC0415 - of use there only

        try:
            return f"{pwd.getpwuid(uid).pw_dir}/.local/run"
        except KeyError:
            return "/var/empty"  # an account that nobody knows has no place of its own
    return f"/run/user/{uid}"


def system_runtime() -> str:
    """The directory of the service's sockets."""
    return "/var/run/attestd" if sys.platform == "darwin" else "/run/attestd"
