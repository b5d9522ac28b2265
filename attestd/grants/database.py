"""Opening the SQLite file of the grant store: who may hold it, how it is set, how it is brought up to date.

Rules. One connection in one process: the file is opened with an exclusive lock, so a second opener is refused (SQLite
before 3.51.3 can corrupt a WAL database with two writers). The directory is the owner's alone (0700), the file 0600;
anything else refuses to open instead of repairing quietly. Every migration runs in one transaction together with the
version that it leads to, after a backup; a database that is newer than this code is refused, never read half-way.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from attestd.errors import AttestdError, ConfigurationError, IntegrityError

APPLICATION_ID = 0x61747374
"""``atst``: marks the file as ours."""
OLDEST_SQLITE = (3, 37, 0)
"""The first release with STRICT tables."""
JOURNAL_LIMIT_BYTES = 4 * 1024 * 1024

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID",
        """
        CREATE TABLE grants (
            id TEXT PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
            uid INTEGER NOT NULL CHECK (uid >= 0),
            server TEXT NOT NULL CHECK (server <> ''),
            program_kind TEXT NOT NULL CHECK (program_kind IN ('exact', 'package', 'lineage')),
            program TEXT NOT NULL CHECK (program <> ''),
            lifetime TEXT NOT NULL
                CHECK (lifetime IN ('once', 'process', 'session', 'until', 'binary', 'standing')),
            until_ns INTEGER,
            body BLOB NOT NULL,
            digest BLOB NOT NULL CHECK (length(digest) = 32),
            audit_seq INTEGER NOT NULL CHECK (audit_seq >= 0),
            hits INTEGER NOT NULL DEFAULT 0,
            last_used_ns INTEGER,
            revoked_ns INTEGER,
            revoked_seq INTEGER
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX grants_live ON grants (uid, server) WHERE revoked_ns IS NULL",
        """
        CREATE TABLE pending (
            code TEXT PRIMARY KEY CHECK (length(code) = 9),
            uid INTEGER NOT NULL,
            expires_ns INTEGER NOT NULL,
            body BLOB NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
    ),
)
"""Statements that lead from version n to n + 1. Append only."""

_PRAGMAS: tuple[str, ...] = (
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "secure_delete = ON",
    "recursive_triggers = ON",
    "mmap_size = 0",
    f"journal_size_limit = {JOURNAL_LIMIT_BYTES}",
    "fullfsync = ON",
    "checkpoint_fullfsync = ON",
)


def open_database(
    path: Path, *, migrations: Sequence[Sequence[str]] = MIGRATIONS, busy_ms: int = 5000
) -> sqlite3.Connection:
    """The connection, exclusively ours, current and set; the file is made if it is missing.

    Raises ConfigurationError (place, permissions, another opener, a newer version), IntegrityError (not a database,
    damaged), AttestdError (disk full, I/O).
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigurationError(f"cannot use SQLite {sqlite3.sqlite_version}: the grant store needs 3.37 or later")
    _own_directory(path.parent)
    _own_file(path)
    database = sqlite3.connect(path, isolation_level=None, timeout=busy_ms / 1000)
    try:
        for pragma in _PRAGMAS:
            database.execute(f"PRAGMA {pragma}")
        _migrate(database, path, migrations)
    except sqlite3.Error as error:
        database.close()
        raise translated(error, path, "open") from error
    except AttestdError:
        database.close()
        raise
    return database


def translated(error: sqlite3.Error, path: Path, what: str) -> AttestdError:
    """The error of attestd that says what SQLite's error means to a person."""
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return ConfigurationError(
            f"cannot {what} the grant store {path}: another process has it open",
            hint="only one attestd may run on one state directory; stop the other with: attestctl status",
        )
    if isinstance(error, sqlite3.OperationalError | sqlite3.IntegrityError):
        return AttestdError(
            f"cannot {what} the grant store {path}: {error}; nothing was changed",
            hint="make room on the disk or repair the file system, then try again",
        )
    return IntegrityError(
        f"cannot {what} the grant store {path}: {error}",
        hint="put back a backup of it, or move it away and approve the clients again",
    )


def _own_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = directory.lstat()
    except OSError as error:
        raise ConfigurationError(f"cannot use the state directory {directory}: {error.strerror}") from error
    _ours(facts, directory, stat.S_ISDIR(facts.st_mode), "a directory", 0o700)


def _own_file(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigurationError(f"cannot make the grant store {path}: {error.strerror}") from error
    facts = path.lstat()
    _ours(facts, path, stat.S_ISREG(facts.st_mode), "a regular file", 0o600)


def _ours(facts: os.stat_result, path: Path, right_kind: bool, kind: str, mode: int) -> None:
    if not right_kind:
        raise ConfigurationError(f"cannot use {path}: it is not {kind}")
    if facts.st_uid != os.geteuid():
        raise ConfigurationError(f"cannot use {path}: it belongs to uid {facts.st_uid}, expected {os.geteuid()}")
    if facts.st_mode & 0o077:
        raise ConfigurationError(
            f"cannot use {path}: its mode is {stat.S_IMODE(facts.st_mode):04o}, expected {mode:04o}",
            hint=f"run: chmod {mode:04o} {path}",
        )


def _migrate(database: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]]) -> None:
    application, version = _value(database, "application_id"), _value(database, "user_version")
    empty = _value(database, "schema_version") == 0
    if not (empty and application == 0) and application != APPLICATION_ID:
        raise ConfigurationError(f"cannot use {path}: it is a database of another program ({application:#x})")
    if version > len(migrations):
        raise ConfigurationError(
            f"cannot use {path}: it has version {version}, this attestd knows versions up to {len(migrations)}",
            hint="install the newer attestd again, or put back the backup that was made before the update",
        )
    if 0 < version < len(migrations):
        _back_up(database, path, version)
    for step in range(version, len(migrations)):
        database.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[step]:
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {step + 1}")
            database.execute("COMMIT")
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")


def _back_up(database: sqlite3.Connection, path: Path, version: int) -> None:
    final = path.with_name(f"{path.name}.bak.v{version}")
    partial = path.with_name(f"{path.name}.bak.partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(partial)) as copy:
        database.backup(copy)
    partial.replace(final)


def _value(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])
