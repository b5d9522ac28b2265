"""``attestctl explain``."""

from __future__ import annotations

from tests.support.control_instance import Installation


def test_inputs_clauses_and_verdict(looking: Installation) -> None:
    """What was decided, on what, and by which clause."""
    shown = looking.run("explain", "d-1").stdout
    for expected in ("permit  tools/call get_current_time on time", "decision  d-1", "level = 1", "[holds] grant:"):
        assert expected in shown
