"""The kernel recorder under a running daemon: loaded and unloaded with the commands of its users."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile_launchers import HIDE
from tests.support.instance import SCRIPTS, Instance, running
from tests.support.recorder import eventually, pin_root

pytestmark = [pytest.mark.root, pytest.mark.linux("the recorder")]


@pytest.fixture(name="instance")
def _instance(short_tmp: Path) -> Iterator[Instance]:
    """A daemon that would use the recorder if it were loaded; it is not yet."""
    with pin_root() as root, running(short_tmp, recorder=root, process_events=True) as started:
        yield started


def recorder(instance: Instance, command: str) -> None:
    """Run attestd-recorder, which must succeed."""
    done = instance.run("attestd-recorder", command, "--pin", instance.recorder)
    assert done.returncode == 0, done.stderr


def becomes(instance: Instance, state: str) -> str:
    """Wait until status names this state; the reason."""

    def told() -> str | None:
        found = instance.ctl("status")[0]["recorder"]
        return str(found["reason"]) if found["state"] == state else None

    return str(eventually(told))


def inspected(instance: Instance, *before: str | Path) -> dict[str, Any]:
    """``attestctl inspect --self --json``, started by ``before``."""
    program, *words = [*map(str, before), str(SCRIPTS / "attestctl"), "inspect", "--self", "--json"]
    done = instance.run(program, *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_loaded_inspected_unloaded(instance: Instance):
    """Load: the caller is recorded and dead ancestors are marked. Unload: nothing of it stays in the BPF file system."""
    recorder(instance, "load")
    becomes(instance, "on")
    hide = instance.script("hide.py", HIDE)
    found = inspected(instance, SCRIPTS.parent / "bin" / "python", hide, "stay")
    assert found["identity"]["recorded"] is True
    assert found["recorder"]["state"] == "on"
    dead = [link for link in found["chain"] if link["dead"]]
    assert [link["argv"][1:3] for link in dead][:2] == [[str(hide), "stay"]] * 2
    assert not found["chain"][0]["dead"]
    assert os.getpid() in {link["pid"] for link in found["chain"] if not link["dead"]}
    recorder(instance, "unload")
    assert not Path(instance.recorder).exists()
    assert "attestd-recorder load" in becomes(instance, "fallback")


def test_the_daemon_goes_up_and_down_the_ladder(instance: Instance):
    """Process events, the recorder, process events again: at run time, each with its reason."""
    assert "is not loaded" in becomes(instance, "fallback")
    assert inspected(instance)["identity"]["recorded"] is False
    recorder(instance, "load")
    assert "build" in becomes(instance, "on")
    assert inspected(instance)["identity"]["recorded"] is True
    recorder(instance, "unload")
    becomes(instance, "fallback")
    found = inspected(instance)
    assert (found["recorder"]["state"], found["identity"]["recorded"]) == ("fallback", False)
    recorder(instance, "load")
    becomes(instance, "on")


def test_a_session_ends_with_the_recorder_that_it_was_decided_with(instance: Instance):
    """What was proven with the recorder does not outlive it: after the unload the session is over, and says why."""
    recorder(instance, "load")
    becomes(instance, "on")
    instance.grant()
    with instance.client() as client:
        client.initialize()
        assert "result" in client.call()
        recorder(instance, "unload")

        def ended() -> bool:
            return any((each["method"], each["cause"]) == ("close", "unattestable") for each in instance.records())

        assert eventually(ended)
    with instance.client() as client:
        client.initialize()
        assert "result" in client.call()
