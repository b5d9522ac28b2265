"""Sockets of launchd, through the real layouts."""

from __future__ import annotations

import ctypes
import errno
from typing import Any

import pytest

from attestd.kernel.darwin.launchd import activated


class Launchd:
    """launch_activate_socket and free, as launchd answers a job with these sockets."""

    def __init__(self, sockets: dict[str, list[int]], error: int = errno.ENOENT) -> None:
        self._sockets = sockets
        self._error = error
        self._arrays: dict[int, Any] = {}
        self.freed = 0

    def launch_activate_socket(self, name: bytes, fds: Any, count: Any) -> int:
        """Each name once."""
        found = self._sockets.get(name.decode())
        if found is None:
            return self._error
        if not found:
            return errno.EALREADY
        array = (ctypes.c_int * len(found))(*found)
        self._arrays[ctypes.addressof(array)] = array
        fds._obj.value, count._obj.value = ctypes.addressof(array), len(found)
        self._sockets[name.decode()] = []
        return 0

    def free(self, pointer: Any) -> None:
        """What was given out, once."""
        del self._arrays[pointer.value]
        self.freed += 1


def test_what_the_job_has():
    """The descriptors of a name, whose array is given back; a second time is an error."""
    launchd: Any = Launchd({"control": [7, 9]})
    assert activated("control", launchd) == (7, 9)
    assert launchd.freed == 1
    with pytest.raises(OSError) as raised:
        activated("control", launchd)
    assert raised.value.errno == errno.EALREADY


@pytest.mark.parametrize("error", [errno.ESRCH, errno.ENOENT])
def test_nothing_was_made(error: int):
    """Neither for a process that launchd does not know nor for a name that its job has not."""
    launchd: Any = Launchd({}, error)
    assert activated("http", launchd) == ()
