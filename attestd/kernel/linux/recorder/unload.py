"""Ends the recorder: tells whoever reads it, removes every pin, and with the pins the links, programs and maps."""

from __future__ import annotations

import os

from attestd.errors import NothingToDoError
from attestd.kernel.linux.recorder import pins
from attestd.kernel.linux.recorder.failures import refused
from attestd.kernel.linux.recorder.load import mark_replaced


def unload(root: str = pins.ROOT) -> None:
    """Remove everything that ``load`` made, also what a killed loader left; nothing stays in the BPF file system.

    Raises:
        NothingToDoError: nothing is loaded.
        NotPermittedError: the pins may not be removed.
    """
    if not os.path.isdir(root):
        raise NothingToDoError("the kernel recorder is not loaded")
    try:
        with pins.locked(root):
            mark_replaced(pins.current(root))
            for directory in (pins.current(root), *pins.leftovers(root)):
                pins.remove(directory)
            os.rmdir(root)
    except OSError as error:
        raise refused("unload the recorder", error) from None
