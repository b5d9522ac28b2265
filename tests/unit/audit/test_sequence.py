"""Which frame is to blame."""

from __future__ import annotations

from attestd.audit import chain
from attestd.audit.findings import Findings
from attestd.audit.reader import Damage
from attestd.audit.sequence import Sequence


def walk(*steps: Damage | tuple[int, bytes | None]):
    """Frames as (seq, prev) or Damage; ``None`` as prev means the right one. What was found."""
    findings = Findings()
    sequence = Sequence(findings)
    for step in steps:
        if isinstance(step, Damage):
            sequence.damaged(step)
            continue
        seq, prev = step
        raw = chain.encode(chain.RECORD, sequence.chain if prev is None else prev, b"x")
        sequence.record(chain.decode(raw), seq)
    sequence.end()
    return [(problem.seq, problem.what.split(":")[-1].strip()[:20]) for problem in findings.sorted()]


BAD = b"?" * 32
HOLE = Damage(offset=5, size=9, what="the checksum does not match", incomplete=False)


def test_a_good_chain_has_no_problem():
    """Frames in order and linked."""
    assert walk((0, None), (1, None), (2, None)) == []


def test_one_broken_link_blames_the_frame_before():
    """The frame after is linked well, so it was not changed itself."""
    assert [seq for seq, _ in walk((0, None), (1, None), (2, BAD), (3, None))] == [1]


def test_two_broken_links_blame_the_frame_between():
    """A frame whose own link was changed breaks both links beside it."""
    assert [seq for seq, _ in walk((0, None), (1, None), (2, BAD), (3, BAD), (4, None))] == [2]


def test_a_break_at_the_last_link_blames_the_frame_before():
    """Nothing after can say better."""
    assert [seq for seq, _ in walk((0, None), (1, None), (2, BAD))] == [1]


def test_damage_explains_the_link_behind_it():
    """One damaged record is one problem."""
    assert walk((0, None), HOLE, (2, BAD), (3, None)) == [(1, "damaged, the checksu")]


def test_damage_at_the_end_is_named():
    """No frame follows, so the next record is named."""
    assert [seq for seq, _ in walk((0, None), HOLE)] == [1]


def test_damage_over_several_records_names_them_all():
    """The next frame says how many are gone."""
    findings = Findings()
    sequence = Sequence(findings)
    sequence.damaged(HOLE)
    sequence.record(chain.decode(chain.encode(chain.RECORD, BAD, b"x")), 4)
    assert findings.sorted()[0].what.startswith("records 0 to 3: damaged")


def test_a_very_long_gap_is_one_problem():
    """A jump of millions is told in one line and costs no memory."""
    assert walk((0, None), (5_000_000, BAD), (5_000_001, None)) == [(1, "missing")]


def test_a_break_before_a_gap_is_still_told():
    """A changed record directly before a missing one is named too."""
    assert [seq for seq, _ in walk((0, None), (1, None), (2, BAD), (5, BAD))] == [1, 3]


def test_problems_are_counted_beyond_the_limit():
    """A thousand are listed; of the rest the number is told."""
    findings = Findings()
    for seq in range(1005):
        findings.add(seq, 0, 0, "x")
    problems = findings.sorted()
    assert len(findings) == 1000
    assert problems[-1].what == "5 more problems are not listed"
