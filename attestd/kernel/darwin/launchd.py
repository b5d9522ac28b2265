"""Sockets that launchd made for our job: launch_activate_socket(3).

Rules: without launchd, or where the job has no socket of the name, there are none; a name can be taken once in the life
of a process, so a second time is an error. What was passed is verified by whoever adopts it (``daemon.activation``).
"""

from __future__ import annotations

import errno

from attestd.kernel.darwin.libsystem import Functions, System, load

_NONE = frozenset({errno.ESRCH, errno.ENOENT})


def activated(name: str, functions: Functions | None = None) -> tuple[int, ...]:
    """The descriptors under that name of our job. Raises OSError: EALREADY, they were taken before."""
    try:
        return System(functions or load()).activated(name)
    except OSError as error:
        if error.errno in _NONE:
            return ()
        raise
