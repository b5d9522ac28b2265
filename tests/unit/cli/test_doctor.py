"""``attestctl doctor``."""

from __future__ import annotations

import json

from tests.support.control_instance import Installation


def test_each_check_is_a_line_with_its_remedy(looking: Installation) -> None:
    """Aligned labels, and the remedy below what is not well."""
    assert looking.run("doctor").stdout == (
        "[ok]   pidfd            SO_PEERPIDFD is there\n"
        "[warn] user namespaces  anyone may make one\n"
        "                        do: install the recorder\n"
    )


def test_a_failed_check_is_exit_code_1(idle: Installation) -> None:
    """One failure is enough, in both output modes."""
    with idle.daemon(checks=[{"name": "clock", "status": "fail", "detail": "jumps", "remedy": "set it"}]):
        told, as_json = idle.run("doctor"), idle.run("doctor", "--json")
    assert (told.returncode, as_json.returncode) == (1, 1)
    assert "[fail] clock" in told.stdout
    assert json.loads(as_json.stdout.splitlines()[-1])["status"] == "fail"


def test_a_status_that_is_not_known_counts_as_failure(idle: Installation) -> None:
    """A newer daemon's word is never taken for well."""
    with idle.daemon(checks=[{"name": "x", "status": "odd", "detail": ""}]):
        result = idle.run("doctor")
    assert result.returncode == 1
    assert "[fail] x" in result.stdout


def test_an_absent_daemon_is_a_failed_check(idle: Installation) -> None:
    """The doctor speaks also when there is nobody to ask: exit code 1 and the remedy."""
    told = idle.run("doctor")
    assert (told.returncode, told.stderr) == (1, "")
    assert told.stdout.startswith("[fail] daemon  cannot find attestd")
    assert "do: start it with: attestd run --user" in told.stdout
    (check,) = map(json.loads, idle.run("doctor", "--json").stdout.splitlines())
    assert (check["name"], check["status"]) == ("daemon", "fail")
