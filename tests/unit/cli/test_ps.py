"""``attestctl ps``."""

from __future__ import annotations

from tests.support.control_instance import Installation


def test_sessions_hang_below_their_launchers(looking: Installation) -> None:
    """The shared terminal is drawn once, each session once."""
    shown = looking.run("ps").stdout
    assert shown.count("ghostty (pid 10)") == 1
    assert shown.count("s-0 -> time") == shown.count("s-1 -> time") == 1


def test_no_session_is_said_and_is_no_failure(fresh: Installation) -> None:
    """Nothing on standard output."""
    for words in (("ps",), ("ps", "--json")):
        result = fresh.run(*words)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "no session is open\n")
