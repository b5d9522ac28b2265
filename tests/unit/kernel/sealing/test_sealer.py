"""Names and errors of the sealer; what it does is shown in tests/kernel/test_sealing.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from attestd.evidence.sealing import SealError
from attestd.kernel.linux.sealing import netlink
from attestd.kernel.linux.sealing.sealer import HINT_KERNEL, HINT_RIGHT, PREFIX, LinuxSealer


def test_a_table_is_named_after_the_state_directory(tmp_path: Path):
    """The same for every way to the directory, another for another directory, and nft can write it."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    name = LinuxSealer(tmp_path).table
    assert LinuxSealer(link).table == name
    assert LinuxSealer(tmp_path / "x").table != name
    assert re.fullmatch(PREFIX + "[0-9a-f]{12}", name)


@pytest.mark.parametrize(
    ("error", "text", "hint"),
    [
        (PermissionError(1, "Operation not permitted"), "no right to change nftables", HINT_RIGHT),
        (OSError(93, "Protocol not supported"), "Protocol not supported", HINT_KERNEL),
        (OSError(95, "Operation not supported"), "Operation not supported", HINT_KERNEL),
        (OSError(28, "No space left on device"), "No space left on device", ""),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, text: str, hint: str):
    """No right, a kernel without nftables, and what neither explains."""

    def fail(_: object) -> bool:
        raise error

    monkeypatch.setattr(netlink, "table_exists", fail)
    with pytest.raises(SealError, match=text) as found:
        LinuxSealer(tmp_path).exists()
    assert found.value.hint == hint


def test_pyroute2_is_not_loaded_at_every_start():
    """The question of every start is asked without it."""
    source = (
        "import sys; from pathlib import Path\n"
        "from attestd.kernel.linux.sealing.sealer import LinuxSealer, SealError\n"
        "try: LinuxSealer(Path('/none')).exists()\nexcept SealError: pass\n"
        "print('pyroute2' in sys.modules)"
    )
    root = Path(__file__).parents[4]
    assert subprocess.check_output([sys.executable, "-c", source], text=True, cwd=root) == "False\n"
