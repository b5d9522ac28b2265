"""Where everything lives (docs/reference/configuration.md). One place; nothing else builds these paths.

User mode follows the XDG directories of one user; system mode the usual system directories. ``XDG_RUNTIME_DIR`` falls
back to one place (``control.places``), because clients start the shim with a stripped environment and both must agree.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import msgspec

from attestd.control.places import system_runtime, user_runtime
from attestd.errors import ConfigurationError


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    """The directories of one instance."""

    config: Path
    state: Path
    runtime: Path
    user_mode: bool

    @property
    def config_file(self) -> Path:
        """attestd.toml."""
        return self.config / "attestd.toml"

    @property
    def servers(self) -> Path:
        """servers.d."""
        return self.config / "servers.d"

    @property
    def policies(self) -> Path:
        """policy.d: the host's own Cedar files."""
        return self.config / "policy.d"

    @property
    def sockets(self) -> Path:
        """mcp: one socket for each server."""
        return self.runtime / "mcp"

    @property
    def control(self) -> Path:
        """The control socket."""
        return self.runtime / "control.sock"

    @property
    def launcher(self) -> Path:
        """The socket of the launcher of system mode: beside our directory, where we may not write."""
        return self.runtime.with_name("attestd-launcher.sock")

    @property
    def store(self) -> Path:
        """The grant store."""
        return self.state / "grants.db"

    @property
    def registry(self) -> Path:
        """On a system installation: what ``attestctl servers add`` registered."""
        return self.state / "servers"

    @property
    def seals(self) -> Path:
        """Which servers are sealed."""
        return self.state / "seals.json"

    @property
    def audit(self) -> Path:
        """The audit log's directory."""
        return self.state / "audit"


def configuration_directory(paths: Paths) -> None:
    """Make it or refuse it: ours in user mode. On a system installation it is root's, if it is there at all."""
    if paths.user_mode:
        private_directory(paths.config, 0o700)
        return
    for directory in (paths.config, paths.servers, paths.policies):
        try:
            found = directory.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigurationError(f"cannot use {directory}: {error.strerror}", hint="check its mode") from error
        if found.st_uid != 0 or found.st_mode & 0o022:
            raise ConfigurationError(
                f"cannot use {directory}: got owner {found.st_uid} and mode {stat.S_IMODE(found.st_mode):04o}, "
                "expected root's, and that nobody else can write it",
                hint=f"chown root {directory} && chmod go-w {directory}",
            )


def socket_directory(paths: Paths, directory: Path) -> None:
    """A directory of sockets: nobody lists it, everybody may reach what it knows the name of."""
    private_directory(directory, 0o700 if paths.user_mode else 0o711)


def user_paths() -> Paths:
    """Paths of user mode. Raises ConfigurationError if the home directory is unknown."""
    home = os.environ.get("HOME")
    if not home:
        raise ConfigurationError(
            "cannot find the user's directories: HOME is not set", hint="set HOME, or the XDG variables"
        )
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path(home) / ".config")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path(home) / ".local" / "state")
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or user_runtime(os.getuid()))
    return Paths(config=config / "attestd", state=state / "attestd", runtime=runtime / "attestd", user_mode=True)


def system_paths() -> Paths:
    """Paths of system mode."""
    config, state = Path("/etc/attestd"), Path("/var/lib/attestd")
    if sys.platform == "darwin":
        config, state = Path("/Library/Application Support/attestd"), Path("/var/db/attestd")
    return Paths(config=config, state=state, runtime=Path(system_runtime()), user_mode=False)


def policy_directory() -> Path:
    """The shipped policy: of the checkout that this code lies in, of this installation, or of the system."""
    candidates = (
        Path(__file__).resolve().parent.parent.parent / "policy",
        Path(sys.prefix) / "share" / "attestd" / "policy",
        Path("/usr/share/attestd/policy"),
    )
    for candidate in candidates:
        if (candidate / "attestd.cedarschema").is_file():
            return candidate
    raise ConfigurationError(
        "cannot find the shipped policy: looked for attestd.cedarschema in " + ", ".join(str(c) for c in candidates),
        hint="reinstall attestd",
    )


def private_directory(path: Path, mode: int) -> None:
    """Make ``path`` a directory of ours with exactly ``mode``; refuse one that another user owns or may write."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise ConfigurationError(f"cannot use {path}: it is not a directory", hint="move it away")
        if found.st_uid != os.geteuid():
            raise ConfigurationError(
                f"cannot use {path}: it belongs to uid {found.st_uid}, not to uid {os.geteuid()}",
                hint="somebody else made it; find out why before you remove it",
            )
        if stat.S_IMODE(found.st_mode) != mode:
            path.chmod(mode)
    except OSError as error:
        raise ConfigurationError(
            f"cannot use {path}: {error.strerror}", hint="check the directory and its owner"
        ) from error
