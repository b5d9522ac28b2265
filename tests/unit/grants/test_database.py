"""Opening the file of the grant store."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from attestd.errors import AttestdError, ConfigurationError, IntegrityError
from attestd.grants.database import APPLICATION_ID, MIGRATIONS, open_database, translated


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state directory that does not exist yet."""
    return tmp_path / "state"


def pragma(database: sqlite3.Connection, name: str) -> object:
    """The value of one pragma."""
    return database.execute(f"PRAGMA {name}").fetchone()[0]


def test_fresh(home: Path):
    """A missing file is made for its owner only, marked and set as it must be."""
    with closing(open_database(home / "grants.db")) as database:
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        for file in home.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        found = {name: pragma(database, name) for name in ("journal_mode", "synchronous", "secure_delete", "mmap_size")}
        assert found == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "mmap_size": 0}
        assert (pragma(database, "application_id"), pragma(database, "user_version")) == (
            APPLICATION_ID,
            len(MIGRATIONS),
        )
        assert (pragma(database, "foreign_keys"), pragma(database, "trusted_schema")) == (1, 0)


def test_tables_are_strict(home: Path):
    """Wrong types and values outside the closed sets are refused by the tables themselves."""
    with closing(open_database(home / "grants.db")) as database:
        names = [name for (name,) in database.execute("SELECT name FROM pragma_table_list WHERE strict = 1")]
        assert sorted(names) == ["grants", "meta", "pending"]
        with pytest.raises(sqlite3.IntegrityError):
            database.execute("INSERT INTO pending VALUES ('7F3K-9QRT', 'x', 1, x'00')")
        with pytest.raises(sqlite3.IntegrityError):
            database.execute("INSERT INTO pending VALUES ('7F3K', 1, 1, x'00')")


def test_second_opener_is_refused(home: Path):
    """Another process cannot open the store of a living daemon."""
    with closing(open_database(home / "grants.db")):
        program = (
            "import sys; from pathlib import Path; from attestd.grants.database import open_database\n"
            "from attestd.errors import ConfigurationError\n"
            "try: open_database(Path(sys.argv[1]), busy_ms=10)\n"
            "except ConfigurationError as error: print(error.message)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(home / "grants.db")], capture_output=True, text=True, check=True
        )
    assert "another process has it open" in done.stdout


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_open_directory_is_refused(home: Path, mode: int):
    """A directory that others can enter is refused with the command that mends it."""
    home.mkdir()
    home.chmod(mode)
    with pytest.raises(ConfigurationError) as refused:
        open_database(home / "grants.db")
    assert f"its mode is {mode:04o}, expected 0700" in refused.value.message
    assert refused.value.hint.startswith("run: chmod 0700")


def test_open_file_is_refused(home: Path):
    """A file that others can read is refused."""
    open_database(home / "grants.db").close()
    (home / "grants.db").chmod(0o640)
    with pytest.raises(ConfigurationError, match="expected 0600"):
        open_database(home / "grants.db")


def test_symlinks_are_refused(home: Path, tmp_path: Path):
    """Neither the file nor its directory may be a link to somewhere else."""
    home.mkdir(mode=0o700)
    (home / "grants.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        open_database(home / "grants.db")
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "link").symlink_to(home)
    with pytest.raises(ConfigurationError, match="not a directory"):
        open_database(tmp_path / "link" / "grants.db")


@pytest.mark.root
def test_foreign_owner_is_refused(home: Path):
    """A directory of another user is refused."""
    import os

    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to uid 12345, expected 0"):
        open_database(home / "grants.db")


def test_file_in_the_way(tmp_path: Path):
    """A file where the directory should be is a clear refusal."""
    (tmp_path / "state").write_text("")
    with pytest.raises(ConfigurationError, match="cannot use the state directory"):
        open_database(tmp_path / "state" / "grants.db")


def test_newer_database_is_refused(home: Path):
    """A database of a newer version is refused, telling both versions, and left alone."""
    open_database(home / "grants.db", migrations=[*MIGRATIONS, ["CREATE TABLE later (x ANY) STRICT"]]).close()
    before = (home / "grants.db").read_bytes()
    with pytest.raises(ConfigurationError, match=r"it has version 2, this attestd knows versions up to 1"):
        open_database(home / "grants.db")
    assert (home / "grants.db").read_bytes() == before


def test_migration_keeps_rows_and_a_backup(home: Path):
    """An update runs the missing steps, keeps the rows, and leaves the old file beside it."""
    with closing(open_database(home / "grants.db")) as database:
        database.execute("INSERT INTO meta VALUES ('a', 1)")
    with closing(
        open_database(home / "grants.db", migrations=[*MIGRATIONS, ["ALTER TABLE meta ADD COLUMN w ANY"]])
    ) as newer:
        assert newer.execute("SELECT k, v, w FROM meta").fetchall() == [("a", 1, None)]
        assert pragma(newer, "user_version") == 2
    backup = home / "grants.db.bak.v1"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with closing(sqlite3.connect(backup)) as old:
        assert old.execute("SELECT k, v FROM meta").fetchall() == [("a", 1)]
        assert pragma(old, "user_version") == 1


def test_failing_migration_changes_nothing(home: Path):
    """A step that fails takes its own changes and the version back."""
    open_database(home / "grants.db").close()
    bad = [*MIGRATIONS, ["CREATE TABLE half (x ANY) STRICT", "CREATE TABLE half (x ANY) STRICT"]]
    with pytest.raises(AttestdError, match="already exists"):
        open_database(home / "grants.db", migrations=bad)
    with closing(open_database(home / "grants.db")) as database:
        assert pragma(database, "user_version") == 1
        assert database.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone() == (0,)


def test_strange_files_are_refused(home: Path):
    """Another program's database and a file that is none are refused, each in its own words."""
    home.mkdir(mode=0o700)
    for name, content in (("foreign.db", None), ("noise.db", b"not a database at all, " * 100)):
        file = home / name
        if content is None:
            with closing(sqlite3.connect(file)) as other:
                other.execute("CREATE TABLE x (y)")
        else:
            file.write_bytes(content)
        file.chmod(0o600)
    with pytest.raises(ConfigurationError, match="a database of another program"):
        open_database(home / "foreign.db")
    with pytest.raises(IntegrityError, match="not a database"):
        open_database(home / "noise.db")


def test_words_for_errors(home: Path):
    """A full disk is a failure with a remedy, damage is an integrity fault."""
    full = translated(sqlite3.OperationalError("database or disk is full"), home, "write to")
    assert type(full) is AttestdError
    assert "nothing was changed" in full.message
    assert full.hint
    assert isinstance(translated(sqlite3.DatabaseError("malformed"), home, "read"), IntegrityError)
