"""C2: replay, guess or share of approval codes."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import agent, attestctl
from tests.support.instance import Instance, cause, running

pytestmark = pytest.mark.attack("C2")

TRIES = 10


@pytest.fixture(name="instance")
def _instance() -> Iterator[Instance]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


def waiting(instance: Instance, mark: str) -> str:
    """The code of a refused program."""
    with instance.client(instance.talker(mark, f"{mark}.py")) as client:
        return str(client.initialize()["error"]["data"]["code"])


def test_a_code_serves_once(instance: Instance):
    """Without the control a code is a password: here the second use is refused, recorded, and makes no second grant."""
    code = waiting(instance, "one")
    grant = instance.approve(code, "--for", "once")
    for again in (code, code.lower(), code.replace("-", "")):
        result = instance.run("attestctl", "approve", again, "--all-tools", "--yes")
        assert result.returncode == 4, result.stderr
        assert "it is wrong, used, expired or another user's" in result.stderr
    assert [g["id"] for g in instance.ctl("grants", "list")] == [grant["id"]]
    assert len(instance.records(cause="bad_code")) == 3


def test_a_code_of_one_program_admits_no_other(instance: Instance):
    """The approved program is served; another that knows the code, or shows it as its own, is not."""
    code = waiting(instance, "one")
    other = waiting(instance, "other")
    assert code != other
    instance.approve(code)
    with instance.client(instance.talker("other", "other.py")) as client:
        answer = client.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "code": code})
        assert cause(answer) == "no_grant"
        assert answer["error"]["data"]["code"] == other
    with instance.client(instance.talker("one", "one.py")) as client:
        assert "result" in client.initialize()


def test_guessing_is_locked_out(instance: Instance):
    """After ten wrong codes even the right one is refused for a while, for every process of that user; all recorded."""
    code = waiting(instance, "one")
    for number in range(TRIES):
        wrong = f"2222-{2 + number // 8}{2 + number % 8}22"
        assert instance.run("attestctl", "deny", wrong).returncode == 4
    result = instance.run("attestctl", "approve", code, "--all-tools", "--yes")
    assert result.returncode == 4
    assert "cannot take another code: 10 wrong codes in a row" in result.stderr
    assert instance.ctl("grants", "list") == []
    assert len(instance.records(cause="bad_code")) == TRIES + 1


@pytest.mark.ordinary
def test_an_agent_that_guesses_locks_out_nobody_who_may_decide(instance: Instance):
    """It may only look, and is locked out of that; from who may decide the code is taken all the same."""
    code = waiting(instance, "one")
    guess = attestctl(instance, "approve", "2222-2222", "--all-tools", "--yes")
    for _ in range(TRIES):
        assert "it is wrong, used, expired or another user's" in agent(instance, *guess)[1]
    assert "cannot take another code: 10 wrong codes in a row" in agent(instance, *guess)[1]
    assert instance.approve(code)["id"].startswith("g-")


def test_codes_do_not_outlive_the_daemon(instance: Instance):
    """In user mode a code that waited before a restart is nobody's afterwards; the client gets a new one."""
    code = waiting(instance, "one")
    instance.stop()
    instance.start()
    assert instance.run("attestctl", "approve", code, "--all-tools", "--yes").returncode == 4
    assert waiting(instance, "one") != code


@pytest.mark.root
def test_another_user_cannot_use_a_code(instance: Instance):
    """Another uid does not reach the control socket; with the directories opened it is still refused."""
    code = waiting(instance, "one")
    instance.root.chmod(0o755)
    asked = ["setpriv", "--reuid", "60123", "--regid", "60123", "--clear-groups", *attestctl(instance)]
    asked += ["--socket", str(instance.control), "approve", code, "--all-tools", "--yes"]

    def ask() -> subprocess.CompletedProcess[str]:
        return subprocess.run(asked, env=instance.environment, capture_output=True, text=True, timeout=60, check=False)

    assert ask().returncode == 5
    for path in (instance.root / "r", instance.control.parent):
        path.chmod(0o755)
    instance.control.chmod(0o666)
    result = ask()
    assert result.returncode in (4, 5), result.stderr
    assert instance.ctl("grants", "list") == []
