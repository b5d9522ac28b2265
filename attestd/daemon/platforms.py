"""Which kernel room this machine has: the only place that chooses one, by ``sys.platform``.

The rooms are imported where they are chosen, because each loads on its own platform only.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
import sys
from functools import partial

from attestd.errors import ConfigurationError
from attestd.evidence.protocol import AbsentRecorder, Kernel
from attestd.evidence.recorder import Recorder


def open_platform(recorder_root: str | None = None) -> tuple[Kernel, Recorder]:
    """The kernel and the recorder of this machine; ``recorder_root``: where Linux has the recorder's pins.

    The kernel uses the recorder, which the caller closes. Raises ConfigurationError: no such room.
    """
    if sys.platform == "linux":
        from attestd.kernel.linux.kernel import LinuxKernel
        from attestd.kernel.linux.recorder import pins
        from attestd.kernel.linux.recorder.follow import FollowedRecorder, open_recorder

        recorder = FollowedRecorder(partial(open_recorder, recorder_root or pins.ROOT))
        try:
            return LinuxKernel(recorder), recorder
        except BaseException:
            recorder.close()
            raise
    if sys.platform == "darwin":
        from attestd.kernel.darwin.kernel import DarwinKernel

        return DarwinKernel(), AbsentRecorder("macOS has no recorder")
    raise ConfigurationError(f"cannot attest on {sys.platform}: expected Linux or macOS")


def host_id() -> str | None:
    """A stable name of this machine: 32 hex digits; None if it has none."""
    if sys.platform == "linux":
        from attestd.kernel.linux.kernel import host_id as found
    else:
        from attestd.kernel.darwin.kernel import host_id as found
    return found()


def own_image() -> str:
    """The path of the executable that runs us, as the kernel shows it to whoever attests us."""
    if sys.platform == "darwin":
        from attestd.kernel.darwin.kernel import own_image as found

        return found()
    return os.path.realpath("/proc/self/exe")
