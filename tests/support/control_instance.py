"""A throw-away installation: ``bin/attestctl``, ``bin/attestd`` and a runtime directory, and ways to run them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attestd

ROOT = Path(attestd.__file__).resolve().parent.parent
_SCRIPT = "#!{python}\nimport sys\nsys.path[:0] = {paths!r}\nfrom {module} import main\nmain()\n"


class Installation:
    """Scripts in ``bin`` and a runtime directory of their own."""

    def __init__(self, root: Path) -> None:
        self.bin = root / "bin"
        self.runtime = root / "r"
        self.socket = self.runtime / "attestd" / "control.sock"
        self.bin.mkdir()
        self.runtime.mkdir(mode=0o700)
        self.socket.parent.mkdir(mode=0o700)
        self.attestctl = self.script("attestctl", "attestd.cli.main")
        self.attestd = self.script("attestd", "tests.support.control_daemon")

    def script(self, name: str, module: str) -> Path:
        """Write one console script."""
        path = self.bin / name
        path.write_text(
            _SCRIPT.format(python=sys.executable, paths=[str(ROOT), *filter(None, sys.path)], module=module)
        )
        path.chmod(0o755)
        return path

    def environment(self, **extra: str) -> dict[str, str]:
        """An environment with nothing of the test's own."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.runtime),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "TZ": "UTC",
            **extra,
        }

    @contextlib.contextmanager
    def daemon(self, *, script: Path | None = None, **plan: Any) -> Iterator[subprocess.Popen[str]]:
        """The control daemon, for as long as the block runs."""
        command = [str(script or self.attestd), str(self.socket), json.dumps(plan)]
        process = subprocess.Popen(
            command, env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.stdin.close()
            process.wait(20)
            process.stdout.close()

    def run(
        self, *words: str, env: dict[str, str] | None = None, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run attestctl without a terminal."""
        return subprocess.run(
            [str(self.attestctl), *words],
            env=self.environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def json(self, *words: str) -> list[dict[str, Any]]:
        """Run attestctl with ``--json``; it must succeed."""
        result = self.run(*words, "--json")
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]
