"""``attestd demo``, which is ``make run``: the main job, told to its end, with nothing left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.instance import SCRIPTS


def test_the_story_is_told_to_its_end(short_tmp: Path):
    """A newcomer is refused twice, approved and answered; the log verifies; the instance and its directory are gone."""
    environment = {**os.environ, "HOME": str(short_tmp), "TMPDIR": str(short_tmp)}
    told = subprocess.run(
        [str(SCRIPTS / "attestd"), "demo"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("attestd refused") == 2
    assert told.stdout.count("Asia/Tokyo") >= 2
    assert "\nok  " in told.stdout.partition("$ attestctl audit verify")[2]
    assert told.stdout.rstrip().endswith("nothing was left behind.")
    assert list(short_tmp.glob("attestd-demo-*")) == []
