"""What is not Python, installed once below ``.conformance``: Node 22, the suites, the TypeScript SDKs and servers.

Exact versions with their digests stand in npm/package-lock.json; no script of a package runs. The SDK's own conformance
server and client come with its source distribution, whose digest stands in requirements.lock.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import msgspec

from tests.support.npm import PLACE, ROOT, MissingError, node, program
from tests.support.npm import install as npm_install

HERE = Path(__file__).parent
SDK = "mcp"


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything is."""

    node: Path
    modules: Path
    programs: Path
    """Our own programs, beside the modules that they import."""
    sdist: Path

    def suite(self, version: str) -> list[str]:
        """The command of a conformance suite: 0.1 or 0.2."""
        return [str(self.node), str(self.modules / f"conformance-{version}" / "dist" / "index.js")]

    def server(self, name: str) -> list[str]:
        """The command of one of the reference servers of npm."""
        return [str(self.node), str(self.modules / "@modelcontextprotocol" / f"server-{name}" / "dist" / "index.js")]

    @property
    def inspector(self) -> list[str]:
        """The command of the Inspector's CLI."""
        return [str(self.node), str(self.modules / ".bin" / "mcp-inspector"), "--cli"]

    @property
    def everything(self) -> Path:
        """The directory to put on PYTHONPATH for ``mcp_everything_server``."""
        return self.sdist / "examples" / "servers" / "everything-server"

    @property
    def conformance_client(self) -> Path:
        """The SDK's client for the client suites."""
        return self.sdist / ".github" / "actions" / "conformance" / "client.py"


def install() -> Installed:
    """Install what is missing; quick when everything is there."""
    try:
        npm = npm_install(HERE / "npm", "npm")
    except MissingError as error:
        raise SystemExit(f"cannot install the conformance suites: {error}") from error
    for source in (HERE / "programs").iterdir():
        if source.is_file():
            program(source, npm)
    return Installed(node=node(npm), modules=npm / "node_modules", programs=npm, sdist=_sdist())


def _sdist() -> Path:
    """The unpacked source distribution of the SDK, at the version and digest that the lock names."""
    pin = _pin()
    version = pin.split("==")[1].split()[0]
    place = PLACE / "sdist" / f"{SDK}-{version}"
    if not place.exists():
        with tempfile.TemporaryDirectory() as scratch:
            requirements = Path(scratch) / "requirements.txt"
            requirements.write_text(pin, encoding="utf-8")
            words = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--require-hashes", "-d", scratch]
            subprocess.run([sys.executable, "-m", "pip", *words, "-r", str(requirements)], check=True)
            (archive,) = Path(scratch).glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(place.parent, filter="data")
    return place


def _pin() -> str:
    """The entry of the SDK in requirements.lock, with its digests."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"{SDK}=="))
    entry = [lines[start]]
    for line in lines[start + 1 :]:
        if "--hash=" not in line:
            break
        entry.append(line)
    return "\n".join(entry).rstrip("\\").rstrip() + "\n"
