"""What the daemon sees of the launcher."""

from __future__ import annotations

from attestd.errors import AttestdError, ExitCode
from attestd.launch.client import ProcessLauncher
from attestd.launch.protocol import Backend, Launcher, LaunchError
from attestd.launch.server import ServerProcess
from attestd.launch.session_launcher import NoLauncher, SessionLauncher


def test_the_real_ones_implement_the_protocols() -> None:
    """The assignments type-check, and every member of the protocols exists."""
    launchers: tuple[type[Launcher], ...] = (ProcessLauncher, SessionLauncher, NoLauncher)
    backend: type[Backend] = ServerProcess
    assert all(hasattr(launcher, name) for launcher in launchers for name in ("start", "close"))
    assert all(hasattr(backend, name) for name in ("finish", "stop", "stderr_tail"))


def test_a_launch_error_is_theirs() -> None:
    """It is of the family that is shown to people, with a code of its own."""
    error = LaunchError("cannot start x", hint="do y")
    assert isinstance(error, AttestdError)
    assert (error.code, error.exit_code, error.hint) == ("launch", ExitCode.FAILED, "do y")
