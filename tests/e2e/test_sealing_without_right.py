"""Sealing where attestd runs as an ordinary user without NET_ADMIN."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.instance import running

pytestmark = [pytest.mark.ordinary, pytest.mark.linux("sealed ports")]


def test_the_error_says_what_to_do(short_tmp: Path):
    """Nothing is sealed, nothing is recorded as if it were, and unsealing by command is refused in the same words."""
    with running(short_tmp) as instance:
        text = '[server]\nname = "notes"\ntransport = "http"\nurl = "http://127.0.0.1:8765/mcp"\n'
        instance.server("notes", text=text)
        instance.ctl("reload")
        done = instance.run("attestctl", "servers", "seal", "notes")
        assert done.returncode == 1
        assert "no right to change nftables" in done.stderr
        assert "NET_ADMIN" in done.stderr
        assert instance.ctl("status")[0]["seals"] == []
        assert instance.records(method="server.seal") == []
        done = instance.run("attestd", "unseal", "--user")
        assert (done.returncode, "NET_ADMIN" in done.stderr) == (1, True)
