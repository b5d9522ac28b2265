"""Key files."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestd.audit.keys import KeyStore
from attestd.errors import ConfigurationError


@pytest.fixture
def store(tmp_path: Path):
    """An empty store."""
    made = KeyStore(tmp_path, "attestd.test/audit")
    yield made
    made.close()


def test_a_key_comes_back_and_a_foreign_file_does_not(store: KeyStore, tmp_path: Path):
    """Only the private key that belongs to the public one is loaded."""
    private, key = store.create()
    assert store.load(key).private_bytes_raw() == private.private_bytes_raw()
    [path] = (tmp_path / "keys").iterdir()
    for content in (b"x" * 32, b"short"):
        path.write_bytes(content)
        assert store.load(key) is None
    path.unlink()
    assert store.load(key) is None


def test_old_keys_are_overwritten_and_removed(store: KeyStore, tmp_path: Path):
    """The bytes of an old key are gone from the file itself, also for one who holds it open."""
    _, old = store.create()
    [path] = (tmp_path / "keys").iterdir()
    with path.open("rb") as held:
        _, current = store.create()
        store.destroy_others(current)
        assert held.read() == bytes(32)
    assert store.load(old) is None
    assert store.load(current) is not None


def test_a_key_directory_open_to_others_is_refused(tmp_path: Path):
    """Keys that someone else could read are no keys."""
    (tmp_path / "keys").mkdir(mode=0o755)
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(ConfigurationError, match="mode 0755, expected"):
        KeyStore(tmp_path, "attestd.test/audit")
