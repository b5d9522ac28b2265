"""The vectors: evidence in, full result out, pinned; and the digests by a second implementation."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from attestd.appraisal.appraise import Naming, appraise
from tests.support.appraisal_cases import CASES, VECTORS, Vector, text_of, vector_of
from tests.support.evidence import shipped_table

FILES = sorted(VECTORS.glob("*.json"))
SCRIPT = Path(__file__).parents[2] / "vectors" / "recompute.sh"
NAMED_BY_THE_PLAN = {
    "direct", "sh-c", "npx-node", "evil-claude", "editor-extension-host", "agent-shell-shell-shim", "tmux", "ssh",
    "double-fork", "exec-a", "shebang", "sudo", "bubblewrap-child", "unreadable", "electron-collapsed",
    "inline-exception", "build-step", "root-unreadable-edge", "orphan",
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_result_is_pinned(path: Path):
    """The whole result, level and every reason included, is what the vector says."""
    vector = msgspec.json.decode(path.read_bytes(), type=Vector)
    naming = Naming(trust_domain=vector.trust_domain, host_id=vector.host_id)
    assert appraise(vector.evidence, shipped_table(), vector.references, naming) == vector.expected


def test_every_case_has_its_vector():
    """Each case of the support module is one file with exactly its text, and no file is left over."""
    assert {path.stem for path in FILES} == {case.name for case in CASES}
    for case in CASES:
        assert (VECTORS / f"{case.name}.json").read_text(encoding="ascii") == text_of(vector_of(case)), case.name


def test_the_plan_is_covered():
    """Every ancestry that the design names has a vector."""
    assert {path.stem for path in FILES} >= NAMED_BY_THE_PLAN


def test_level_is_the_least_cap():
    """In every vector the level is the least cap, reasons are sorted, and something is always said."""
    for path in FILES:
        expected = msgspec.json.decode(path.read_bytes(), type=Vector).expected
        assert expected.level == min(reason.cap for reason in expected.reasons)
        assert list(expected.reasons) == sorted(expected.reasons)


def test_second_implementation_agrees():
    """The shell script recomputes all digests and SPIFFE IDs from the evidence and finds no difference."""
    done = subprocess.run(["sh", str(SCRIPT)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for path in FILES:
        expected = msgspec.json.decode(path.read_bytes(), type=Vector).expected
        for what, value in (("program", expected.program), ("chain", expected.chain), ("spiffe", expected.spiffe_id)):
            assert f"{path.stem} {what} {value}" in lines
    assert lines[-1] == f"ok {len(lines) - 1} values"


@pytest.mark.parametrize("field", ["program", "chain", "spiffe_id"])
def test_second_implementation_notices_a_change(tmp_path: Path, field: str):
    """One changed digit in a vector makes the script exit 1 and name the file."""
    source = shutil.copy(VECTORS / "direct.json", tmp_path / "changed.json")
    text = Path(source).read_text(encoding="ascii")
    value = getattr(msgspec.json.decode(text, type=Vector).expected, field)
    other = value[:-1] + ("0" if value[-1] != "0" else "1")
    Path(source).write_text(text.replace(f'"{field}": "{value}"', f'"{field}": "{other}"'), encoding="ascii")
    done = subprocess.run(["sh", str(SCRIPT), source], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "changed" in done.stdout
    assert "stated" in done.stdout
