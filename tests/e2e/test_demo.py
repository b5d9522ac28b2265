"""``attestd demo``, which is ``make run``: the main job, told to its end, with nothing left behind."""

from __future__ import annotations

from pathlib import Path

from tests.support.instance import on_the_machine


def test_the_story_is_told_to_its_end(short_tmp: Path):
    """A newcomer is refused twice, approved and answered; the log verifies; the instance and its directory are gone."""
    installed = on_the_machine(short_tmp)
    installed.environment["TMPDIR"] = str(short_tmp)
    told = installed.run("attestd", "demo", timeout=120)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("attestd refused") == 2
    assert told.stdout.count("Asia/Tokyo") >= 2
    assert "\nok  " in told.stdout.partition("$ attestctl audit verify")[2]
    assert told.stdout.rstrip().endswith("nothing was left behind.")
    assert list(short_tmp.glob("attestd-demo-*")) == []
