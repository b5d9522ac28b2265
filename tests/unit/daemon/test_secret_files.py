"""Secrets from files: read strictly, never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attestd.daemon.secret_files import read_secret
from attestd.errors import ConfigurationError


def written(path: Path, content: bytes, mode: int = 0o600) -> str:
    """A file of ours."""
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("content", [b"secret", b"secret\n", b"secret\r\n"])
def test_one_line(tmp_path: Path, content: bytes):
    """With or without its end."""
    assert read_secret(written(tmp_path / "token", content)) == "secret"


@pytest.mark.parametrize("content", [b"", b"\n", b"hidden\nX: y", b"hidden \n", b"hidd\xc3\xa9n", b"hidden" * 2000])
def test_what_cannot_stand_in_a_header(tmp_path: Path, content: bytes):
    """It is refused by the file's name, and its content is not shown."""
    path = written(tmp_path / "token", content)
    with pytest.raises(ConfigurationError) as found:
        read_secret(path)
    assert path in found.value.message
    assert "hidd" not in found.value.message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_read_or_write(tmp_path: Path, mode: int):
    """It is no secret."""
    with pytest.raises(ConfigurationError, match=r"expected uid .* and mode 0600") as found:
        read_secret(written(tmp_path / "token", b"secret", mode))
    assert found.value.hint.startswith("run: chmod 0600 ")


@pytest.mark.root
def test_a_file_of_somebody_else(tmp_path: Path):
    """Whoever owns it could change it."""
    path = written(tmp_path / "token", b"secret")
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigurationError, match="uid 12345"):
        read_secret(path)


def test_what_is_no_file(tmp_path: Path):
    """Missing, a link, a directory, a pipe: refused, and nothing hangs."""
    real = written(tmp_path / "token", b"secret")
    (tmp_path / "link").symlink_to(real)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("missing", "link", ".", "pipe"):
        with pytest.raises(ConfigurationError):
            read_secret(str(tmp_path / name))
