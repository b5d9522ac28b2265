"""Which virtual environment a Python process runs in: it decides which installed code the process loads.

CPython finds it without asking anybody: the directory of the program it was called as (argv[0], links not followed),
or the one above, holds ``pyvenv.cfg``. So two processes with one interpreter and one script load different code if
they were called through different environments. argv[0] is the process's own word: usable to name the environment,
never to trust it.
"""

from __future__ import annotations

import os
import sys

from attestd.kernel.linux.process import Process
from attestd.kernel.linux.recorded import Start
from attestd.kernel.linux.view import View

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")


def environment_of(process: Process, argv: tuple[str, ...], start: Start | None = None) -> str | None:
    """Root of the environment as the process sees it; None if there is none or argv[0] does not lead to its image.

    Raises:
        OSError: root or working directory may not be read. ProcessLookupError: the process has exited.
    """
    if not argv or "/" not in argv[0]:
        return None
    with View(process.dirfd, start) as view:
        program = os.path.normpath(view.absolute(argv[0]))
        running, called = os.stat("exe", dir_fd=process.dirfd), view.stat(program)
        if called is None or (called.st_dev, called.st_ino) != (running.st_dev, running.st_ino):
            return None
        directory = os.path.dirname(program)
        for root in (directory, os.path.dirname(directory)):
            if view.stat(f"{root}/pyvenv.cfg") is not None:
                return root
    return None
