"""Programs and maps of an object."""

from __future__ import annotations

import pytest

from attestd.kernel.linux.recorder.failures import FormatError
from attestd.kernel.linux.recorder.load import committed_object
from attestd.kernel.linux.recorder.object import MapSpec, parse


def test_the_maps():
    """Declarations are read with their sizes."""
    maps = {spec.name: spec for spec in parse(committed_object()).maps}
    assert maps["alive"] == MapSpec(name="alive", kind=1, key_size=16, value_size=112, max_entries=32768, flags=0)
    assert maps["events"].max_entries == 8 << 20
    words = {"words_of_living", "words_of_task"}
    assert set(maps) == {"alive", "dead", "events", "connects", "stats", "state", "scratch", *words}


def test_the_programs():
    """Every program fills its section and refers to maps by name."""
    parsed = parse(committed_object())
    assert {program.name: program.section for program in parsed.programs} == {
        "on_fork": "tp_btf/sched_process_fork",
        "on_exec": "tp_btf/sched_process_exec",
        "on_exit": "tp_btf/sched_process_exit",
        "seed": "iter/task",
        "on_connect4": "cgroup/connect4",
        "on_connect6": "cgroup/connect6",
        "on_connect_unix": "cgroup/connect_unix",
    }
    assert {name for _, name in parsed.program("on_exit").maps} == {"alive", "dead", "words_of_living", "stats"}
    assert parsed.licence == "Dual MIT/GPL"


def test_a_program_that_is_not_there():
    """Asking for a program that is missing names it and those that are there."""
    with pytest.raises(FormatError, match="'nothing' in the object, it has"):
        parse(committed_object()).program("nothing")


def test_the_object_is_small():
    """It belongs into the wheel."""
    assert len(committed_object()) <= 40 << 10
