"""Loading what decides."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from attestd.daemon.paths import policy_directory
from attestd.daemon.policy import load_policy
from attestd.errors import ConfigurationError, PolicyInvalidError

SHIPPED = policy_directory()


def test_the_baseline_alone(tmp_path: Path):
    """Without files of the host there is one layer."""
    policy = load_policy(SHIPPED, tmp_path / "nosuch", "h")
    assert policy.files == (str(SHIPPED / "baseline.cedar"),)
    assert len(policy.engine.generation) == 64
    assert policy.engine.generation == load_policy(SHIPPED, tmp_path, "h").engine.generation


def test_files_of_the_host_are_layers_in_order(tmp_path: Path):
    """By name, after the vendor's; every one changes the generation; other files are left alone."""
    for name in ("b", "a"):
        (tmp_path / f"{name}.cedar").write_text(f'@id("{name}")\nforbid (principal, action, resource);\n')
    (tmp_path / "notes.txt").write_text("not a policy")
    policy = load_policy(SHIPPED, tmp_path, "h")
    assert [Path(each).name for each in policy.files] == ["baseline.cedar", "a.cedar", "b.cedar"]
    assert {"host.a/a", "host.b/b"} <= set(policy.engine.policies)
    assert policy.engine.generation != load_policy(SHIPPED, tmp_path / "x", "h").engine.generation


def test_a_bad_policy_is_named(tmp_path: Path):
    """File and line."""
    (tmp_path / "mine.cedar").write_text("permit (")
    with pytest.raises(PolicyInvalidError, match=r"mine\.cedar.*line 1") as found:
        load_policy(SHIPPED, tmp_path, "h")
    assert found.value.exit_code == 6


def test_files_that_cannot_be_read(tmp_path: Path):
    """What is not text, and what is missing from the shipped policy, is named with a hint."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "x.cedar").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"x\.cedar: it is not UTF-8"):
        load_policy(SHIPPED, tmp_path / "host", "h")
    shutil.copytree(SHIPPED, tmp_path / "shipped")
    (tmp_path / "shipped" / "classes.toml").unlink()
    with pytest.raises(ConfigurationError, match=r"classes\.toml: No such file") as found:
        load_policy(tmp_path / "shipped", tmp_path, "h")
    assert found.value.hint
