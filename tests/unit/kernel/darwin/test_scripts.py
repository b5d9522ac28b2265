"""What interpreters run, and what stays unresolved."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest

from attestd.evidence.model import Script
from attestd.kernel.darwin.access import Access
from attestd.kernel.darwin.scripts import Place, npm_origin, resolve
from tests.support.macs import Scene

LATER_US = 4_000_000_000_000_000


def run(scene: Scene, exe: str, *argv: str, **facts: Any) -> Script | None:
    """As a reading asks."""
    base: dict[str, Any] = {
        "exe_path": exe,
        "cwd": str(scene.directory),
        "started_us": LATER_US,
        "at_terminal": False,
        "uids": frozenset({501}),
    }
    return resolve(scene.files, Access(scene.system.acl_allows), Place(**(base | facts)), argv)


def test_a_program_is_no_interpreter(scene: Scene):
    """Nothing is looked for."""
    assert run(scene, "/usr/local/bin/agent", "agent", "x.js") is None


@pytest.mark.parametrize("name", ["client.js", "./client.js", "../{parent}/client.js", "client"])
def test_a_script_is_found_as_node_does(scene: Scene, name: str):
    """By a relative name, and without its ending."""
    (scene.directory / "client.js").write_text("1")
    script = run(scene, "/usr/local/bin/node", "node", name.format(parent=scene.directory.name))
    assert script is not None
    assert (script.kind, script.sha256) == ("script", hashlib.sha256(b"1").hexdigest())
    assert not script.younger_than_process


@pytest.mark.parametrize("started", [0, 1])
def test_a_younger_script(scene: Scene, started: int):
    """A file that changed after the start, or a start that may not be read, is younger."""
    (scene.directory / "client.js").write_text("1")
    script = run(scene, "/usr/local/bin/node", "node", "client.js", started_us=started)
    assert script is not None
    assert script.younger_than_process
    assert time.time_ns() > 1


@pytest.mark.parametrize(
    ("exe", "argv", "facts"),
    [
        ("/usr/local/bin/node", ("node", "missing.js"), {}),
        ("/usr/local/bin/node", ("node", "client.js"), {"cwd": ""}),
        ("/usr/local/bin/node", ("agent", "client.js"), {}),
        ("/usr/local/bin/node", (), {}),
        ("/usr/bin/python3", ("python3", "-m", "client"), {}),
        ("/usr/bin/python3", ("python3", "."), {}),
        ("/usr/local/bin/node", ("node", "client.js\0"), {}),
    ],
)
def test_what_is_not_certain(scene: Scene, exe: str, argv: tuple[str, ...], facts: dict[str, Any]):
    """Modules, directories, missing files, unknown places and lying words are unresolved."""
    (scene.directory / "client.js").write_text("1")
    script = run(scene, exe, *argv, **facts)
    assert script is not None
    assert (script.kind, script.sha256) == ("unresolved", None)


def test_code_on_the_command_line(scene: Scene):
    """Inline text is hashed."""
    script = run(scene, "/bin/zsh", "zsh", "-c", "echo 1")
    assert script is not None
    assert (script.kind, script.text) == ("inline", "echo 1")


@pytest.mark.parametrize(("terminal", "kind"), [(True, "none"), (False, "stdin")])
def test_no_code_is_a_prompt_only_at_a_terminal(scene: Scene, terminal: bool, kind: str):
    """Else code comes from standard input."""
    script = run(scene, "/bin/zsh", "-zsh", at_terminal=terminal)
    assert script is not None
    assert script.kind == kind


def test_the_package_of_a_script(scene: Scene):
    """The nearest package.json names it, unverified; beyond node_modules nobody does."""
    root = scene.directory / "node_modules" / "@example" / "client"
    (root / "dist").mkdir(parents=True)
    (root / "package.json").write_text(json.dumps({"name": "@example/client", "version": "1.2.3"}))
    origin = npm_origin(str(root / "dist" / "cli.js"))
    assert origin is not None
    assert (origin.kind, origin.name, origin.version, origin.verified) == ("npm", "@example/client", "1.2.3", False)
    assert npm_origin(str(scene.directory / "node_modules" / "lone.js")) is None
    assert npm_origin("/usr/bin/tool") is None
