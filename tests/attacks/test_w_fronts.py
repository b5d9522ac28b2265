"""W1 to W13 on every front of attestd and before every server: refused, recorded, not executed, and the session goes on.

``test_w_direct`` shows what the same variants do to the same servers when nobody is between.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.support.attack_backs import BACKS, STREAMS
from tests.support.attack_field import FRONTS, Field, field
from tests.support.attack_rows import NOT_APPLICABLE, PROCEDURES, ROWS, Cell, reason
from tests.support.attack_variants import Words, of_row
from tests.support.http_client import ON_TCP
from tests.support.npm import MissingError

pytestmark = [
    pytest.mark.attack("W1"),
    pytest.mark.attack("W2"),
    pytest.mark.attack("W3"),
    pytest.mark.attack("W4"),
    pytest.mark.attack("W5"),
    pytest.mark.attack("W6"),
    pytest.mark.attack("W7"),
    pytest.mark.attack("W8"),
    pytest.mark.attack("W9"),
    pytest.mark.attack("W10"),
    pytest.mark.attack("W11"),
    pytest.mark.attack("W12"),
    pytest.mark.attack("W13"),
]


@pytest.fixture(scope="module", name="open_field")
def _open_field() -> Iterator[Field]:
    """At its end every refusal that was none of a session's is on record, singly or counted."""
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    try:
        with field(root) as made:
            yield made
            made.instance.stop()
            outside = [each for each in made.records() if each.kind == "session" and each.method in {"open", ""}]
            assert sum(int(each.detail.get("times", 1)) for each in outside) == made.refused_outside
    except MissingError as error:
        pytest.skip(f"no servers of TypeScript: {error}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def cells() -> list[ParameterSet]:
    """Every front with every server where ``make attacks`` asks for it; else each front with two servers of the seven
    or one, and each server with two fronts, because a whole product takes minutes."""
    every = list(itertools.product(enumerate(FRONTS), enumerate(BACKS)))
    if os.environ.get("ATTESTD_CELLS") != "all":
        every = [((i, front), (j, back)) for (i, front), (j, back) in every if (i + j) % 4 == 0]
    return [
        pytest.param(front, back, marks=() if FRONTS[front].place == "unix" and back in STREAMS else ON_TCP)
        for (_, front), (_, back) in every
    ]


@pytest.mark.parametrize(("front", "back"), cells())
def test_every_row(open_field: Field, front: str, back: str, capsys: pytest.CaptureFixture[str]):
    """Each variant of each row is refused for its cause and recorded; the server executes none; the session goes on."""
    wrong = Cell(open_field, front, back).run()
    serving = open_field.backs[back].serving
    if wrong and serving is not None and not serving.lives:  # nothing was shown: somebody else's server has ended
        with capsys.disabled():
            print(f"\n{front} {back} is run again: {wrong}")
        with serving.again():
            wrong = Cell(open_field, front, back).run()
    assert wrong == []


@pytest.mark.parametrize("row", ROWS)
def test_the_table_is_complete(row: str):
    """In each cell a row either has something to do or a reason why not, and never both."""
    for front, kind in FRONTS.items():
        port = 1 if kind.place == "tcp" else 0
        variants = of_row(row, Words(kind.era, ""), kind.kind, str, port)
        for back in BACKS:
            does = bool(variants) or (row in PROCEDURES and not reason(row, front, back))
            assert does is not bool(reason(row, front, back)), (row, front, back)


def test_no_reason_is_idle():
    """Each reason stands for a cell."""
    used = {reason(row, front, back) for row in ROWS for front in FRONTS for back in BACKS}
    assert set(NOT_APPLICABLE.values()) <= used
