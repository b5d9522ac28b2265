"""Our own installation: where its programs are and what their digests are, for RELAY and approver reference values.

The interpreter is the real executable, as the kernel shows it; the scripts are the ones beside the running one. What
is hashed here at start is what a caller must run to be our shim or our command line tool.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import msgspec

from attestd.appraisal.references import References, RelayReference
from attestd.daemon.platforms import own_image
from attestd.errors import ConfigurationError

PROGRAMS = ("attestd", "attestctl", "attestd-connect")


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """One installation."""

    scripts: Path
    interpreter_sha256: str
    script_sha256: dict[str, str]

    def reference(self, program: str) -> RelayReference:
        """Reference values of one of our programs."""
        return RelayReference(
            exe_sha256=self.interpreter_sha256,
            script_sha256=self.script_sha256[program],
            script_path=str(self.scripts / program),
        )

    def references(self, *, user_mode: bool) -> References:
        """What appraisal compares with."""
        return References(
            relays=(self.reference("attestd-connect"),), cli=(self.reference("attestctl"),), user_mode=user_mode
        )

    def program_of(self, program: str) -> str:
        """Program digest (appraisal/digests) of one of our programs, hex."""
        text = f"attestd program v1\nexe {self.interpreter_sha256}\nscript {self.script_sha256[program]}\n"
        return hashlib.sha256(text.encode()).hexdigest()


def find_installation() -> Installation:
    """The installation that this process runs from. Raises ConfigurationError if it is not complete."""
    started = Path(os.path.realpath(sys.argv[0]))
    scripts = started.parent if started.name in PROGRAMS else Path(os.path.realpath(Path(sys.executable).parent))
    missing = [name for name in PROGRAMS if not (scripts / name).is_file()]
    if missing:
        raise ConfigurationError(f"cannot find {', '.join(missing)} in {scripts}", hint="reinstall attestd")
    return Installation(
        scripts=scripts,
        interpreter_sha256=_sha256(Path(own_image())),
        script_sha256={name: _sha256(scripts / name) for name in PROGRAMS},
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
