"""A real attestd on a Mac that mirrors this machine (``mac_entry``): its programs are processes of their own, with macOS's
choices of platform; clients, servers and sockets are this machine's.

``attestctl`` is started by a script of ours, whose digest is the configured approver: on the Mac a Python module has no
digest, and the test may be run as one.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fakes.mirror import stand_in
from tests.support.instance import SCRIPTS, SETTLE_S, Instance
from tests.support.repository import ROOT

ENTRY = """\
#!{python}
import sys

sys.path[:1] = [{root!r}]
from tests.support.mac_entry import become

become({images!r}, {activated!r}, {program!r})
from {module} import main

sys.exit(main())
"""
APPROVER = "import subprocess, sys\nsys.exit(subprocess.call(sys.argv[1:]))\n"
MODULES = {"attestd": "attestd.daemon.main", "attestctl": "attestd.cli.main", "attestd-connect": "attestd.shim"}


class MacInstance(Instance):
    """One daemon on the Mac."""

    def __init__(
        self, root: Path, *, approvers: Sequence[str] = (), activated: dict[str, list[int]] | None = None
    ) -> None:
        """``activated``: the listening descriptors that launchd made, by name."""
        super().__init__(root, approvers=approvers)
        self.images = root / "images"
        self.scripts = root / "bin"
        self.scripts.mkdir(exist_ok=True)
        for program, module in MODULES.items():
            passed = activated if program == "attestd" and activated else {}
            text = ENTRY.format(
                python=sys.executable,
                root=str(ROOT),
                images=str(self.images),
                activated=passed,
                module=module,
                program=program,
            )
            (self.scripts / program).write_text(text)
            (self.scripts / program).chmod(0o755)
        (self.scripts / "mcp-server-time").symlink_to(
            SCRIPTS / "mcp-server-time"
        )  # attestd demo finds it beside itself
        self._approver = self.scripts / "approver.py"
        self._approver.write_text(APPROVER)
        self.pass_fds = tuple(fd for fds in (activated or {}).values() for fd in fds)
        self.settings["approval"]["approvers"] = [*approvers, self._digest(self._approver)]
        self.environment["PATH"] = f"{self.scripts}:{self.environment['PATH']}"
        time.sleep(SETTLE_S)

    def command(self, program: str) -> list[str]:
        """Attestctl under the approver; the others as they are."""
        words = super().command(program)
        return [sys.executable, str(self._approver), *words] if program == "attestctl" else words

    def _digest(self, script: Path) -> str:
        """The program digest of a script that this interpreter runs, as the Mac sees it."""
        python = Path(sys.executable).resolve()
        exe = hashlib.sha256(Path(stand_in(self.images, python, python.name).path).read_bytes()).hexdigest()
        text = f"attestd program v1\nexe {exe}\nscript {hashlib.sha256(script.read_bytes()).hexdigest()}\n"
        return hashlib.sha256(text.encode()).hexdigest()
