"""``attestctl pending``."""

from __future__ import annotations

from tests.support.control_instance import Installation


def test_each_client_is_shown_with_its_tree_and_what_to_do(looking: Installation) -> None:
    """Code, cause, wants, launchers, tree and the command that decides."""
    shown = looking.run("pending").stdout
    for expected in (
        "LNCH-2222  refused on time: no_grant",
        "tools/call get_current_time (2 times)",
        "launched by  evil · sha256 eeeeeeee",
        "client.py (pid 30, uid 0) host  <- the accountable client",
        "decide with: attestctl approve LNCH-2222",
    ):
        assert expected in shown


def test_the_documented_keys(looking: Installation) -> None:
    """What scripts rely on, one object a line."""
    found = looking.json("pending")
    assert [each["code"] for each in found] == ["7F3K-9QRT", "EV1L-NAME", "LNCH-2222", "CNCT-3333"]
    assert set(found[0]) >= {"code", "caller", "server", "wants", "cause", "first_seen", "last_seen"}


def test_nobody_waiting_is_exit_code_0(idle: Installation) -> None:
    """A remark for people, nothing for scripts."""
    with idle.daemon(empty=["waiting"]):
        for words in (("pending",), ("pending", "--json")):
            result = idle.run(*words)
            assert (result.returncode, result.stdout, result.stderr) == (0, "", "no client is waiting\n")
