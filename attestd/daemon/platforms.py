"""Which kernel room this machine has: the only place that chooses one, by ``sys.platform``.

The rooms are imported where they are chosen, because each loads on its own platform only.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
import resource
import sys
from collections.abc import MutableMapping
from functools import partial
from pathlib import Path

import msgspec

from attestd.daemon.activation import Passed, take, take_named
from attestd.daemon.paths import Paths
from attestd.daemon.polkit import Authority
from attestd.errors import ConfigurationError
from attestd.evidence.acceptors import Acceptors
from attestd.evidence.protocol import AbsentRecorder, Kernel
from attestd.evidence.recorder import Recorder
from attestd.evidence.sealing import Sealer
from attestd.launch.protocol import Launcher

OPEN_MAX = 10240
"""What the kernel of macOS takes for a soft limit of open files, whatever the hard one."""


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


def open_launcher(paths: Paths) -> Launcher:
    """What starts servers for an instance on this machine, which the caller closes; in a running loop.

    macOS has no launcher of system mode: there each start is refused, and what listens on Unix sockets is served.
    """
    if sys.platform == "linux":
        from attestd.launch.client import ProcessLauncher
        from attestd.launch.system_client import SystemLauncher

        return ProcessLauncher() if paths.user_mode else SystemLauncher(paths.launcher)
    from attestd.launch.session_launcher import NoLauncher, SessionLauncher

    if paths.user_mode:
        return SessionLauncher()
    return NoLauncher(
        "the system service starts no servers on macOS",
        'let launchd start it on a Unix socket (transport = "unix"), or use your own: attestd run --user',
    )


def open_authority() -> Authority | None:
    """Who asks people for passwords on a system installation; None: nobody can here, so only root decides."""
    if sys.platform == "linux":
        from attestd.daemon.polkit import Polkit

        return Polkit()
    return None


def passed_sockets(environ: MutableMapping[str, str], pid: int) -> Passed:
    """What the service manager of this machine has opened for process ``pid``, us. Raises ConfigurationError."""
    if sys.platform == "darwin":
        from attestd.kernel.darwin.launchd import activated

        return take_named(activated)
    return take(environ, pid)


def loopback_refusal() -> str:
    """Why no loopback port can be served here; empty: it can."""
    if sys.platform == "linux":
        return ""
    return "macOS does not tell whose a TCP connection is, so nobody who comes over one could be attested"


def most_descriptors(hard: int) -> int:
    """How many files we may have open here, of a hard limit that may be infinite."""
    if sys.platform == "darwin":
        return min(hard, OPEN_MAX) if hard != resource.RLIM_INFINITY else OPEN_MAX
    return hard


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
