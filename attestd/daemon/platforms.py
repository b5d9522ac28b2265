"""Which kernel room this machine has: the only place that chooses one, by ``sys.platform``.

The rooms are imported where they are chosen, because each loads on its own platform only.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import msgspec

from attestd.errors import ConfigurationError
from attestd.evidence.acceptors import Acceptors
from attestd.evidence.protocol import AbsentRecorder, Kernel
from attestd.evidence.recorder import Recorder
from attestd.evidence.sealing import Sealer


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What asks the operating system here."""

    kernel: Kernel
    recorder: Recorder
    acceptors: Acceptors | None = None
    """Who accepted a loopback connection; None: this room cannot say."""
    sealer: Sealer | None = None
    """Seals loopback ports; None: this room cannot."""

    def close(self) -> None:
        """Let go of what the kernel gave."""
        if self.acceptors is not None:
            self.acceptors.close()
        self.recorder.close()


def open_platform(state: Path, recorder_root: str | None = None, *, process_events: bool = True) -> Platform:
    """The room of this machine, which the caller closes. Raises ConfigurationError: there is none.

    ``state``: the directory of the instance, whose seals are its own; ``recorder_root``: where Linux has the recorder's
    pins; ``process_events``: whether they are followed without it.
    """
    if sys.platform == "linux":
        from attestd.kernel.linux.connector.fallback import open_fallback
        from attestd.kernel.linux.kernel import LinuxKernel
        from attestd.kernel.linux.recorder import pins
        from attestd.kernel.linux.recorder.follow import FollowedRecorder, open_recorder
        from attestd.kernel.linux.sealing.sealer import LinuxSealer
        from attestd.kernel.linux.tcp.acceptors import LinuxAcceptors

        fallback = open_fallback if process_events else None
        recorder = FollowedRecorder(partial(open_recorder, recorder_root or pins.ROOT), fallback)
        try:
            return Platform(
                kernel=LinuxKernel(recorder), recorder=recorder, acceptors=LinuxAcceptors(), sealer=LinuxSealer(state)
            )
        except BaseException:
            recorder.close()
            raise
    if sys.platform == "darwin":
        from attestd.kernel.darwin.kernel import DarwinKernel

        return Platform(kernel=DarwinKernel(), recorder=AbsentRecorder("macOS has no recorder"))
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
