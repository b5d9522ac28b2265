"""What user mode does not protect against is said in plain words."""

from __future__ import annotations

from attestd.control.usermode import NOT_PROTECTED


def test_each_is_one_plain_sentence() -> None:
    """Lower case, without a final stop, on one line that a terminal can hold twice over."""
    for sentence in NOT_PROTECTED:
        assert sentence[0].islower()
        assert not sentence.endswith(".")
        assert len(sentence) < 160


def test_the_strongest_truth_is_there() -> None:
    """A hostile program of the same user is named."""
    assert any("hostile program of yours" in sentence for sentence in NOT_PROTECTED)
