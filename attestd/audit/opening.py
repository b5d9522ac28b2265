"""Opens the log for writing. The steps, in order; each block repeats its number.

1 The directory is ours alone and no other writer holds it.
2 A log that is not there yet begins with a key, its public key beside it, and segment 0; but not where a high-water
  mark says that there was one.
3 The last segment is read: tampering refuses, a torn tail is noted.
4 A torn tail is replaced by the record that says what was dropped.
5 The key of the epoch is loaded; if it is lost, a record says so and a new epoch begins, which no signature connects.
6 The salt of the argument digests is loaded; if it is lost, a record says so.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from pathlib import Path

import msgspec

from attestd.audit import chain, files
from attestd.audit.highwater import read_high_water
from attestd.audit.keys import KeyStore
from attestd.audit.model import Head
from attestd.audit.notes import VerifierKey, is_name
from attestd.audit.protocol import Entry
from attestd.audit.recovery import HINT, Scan, scan
from attestd.audit.segment import Segment
from attestd.audit.writer import Position, Writer, header_frame
from attestd.errors import ConfigurationError, IntegrityError

_SALT_BYTES = 32


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A log that is ready to grow."""

    writer: Writer
    salt: bytes
    _stack: ExitStack

    def release(self) -> None:
        """Close every descriptor."""
        self.writer.segment.close()
        self._stack.close()


def open_log(path: Path, *, origin: str, high_water: Path | None, now_ns: int) -> Opened:
    """Open or begin the log in ``path``. Raises ConfigurationError, IntegrityError, AuditUnavailableError."""
    if not is_name(origin):
        raise ConfigurationError(
            f"cannot name the audit log {origin!r}: expected a name without spaces and plus signs",
            hint="use a name like example.com/host",
        )
    try:
        with ExitStack() as stack:
            # 1
            directory = files.open_directory(path, create=True)
            stack.callback(os.close, directory)
            files.require_private(directory, os.fspath(path))
            stack.callback(os.close, files.lock_directory(directory, path))
            keys = KeyStore(path, origin)
            stack.callback(keys.close)
            mark = None if high_water is None else read_high_water(high_water)
            writer, salt = _open_locked(directory, keys, origin=origin, mark=mark, now_ns=now_ns)
            return Opened(writer=writer, salt=salt, _stack=stack.pop_all())
    except OSError as error:
        raise files.unavailable("open", error) from error


def _open_locked(
    directory: int, keys: KeyStore, *, origin: str, mark: Head | None, now_ns: int
) -> tuple[Writer, bytes]:
    # 2
    numbers = files.segment_numbers(directory)
    if not numbers:
        return _begin(directory, keys, mark, origin=origin, now_ns=now_ns), _new_salt(directory)
    _require_contiguous(numbers)
    # 3
    found = _scan_last(directory, numbers[-1], origin=origin, mark=mark)
    # 4, 5
    writer = _resume(directory, keys, found, number=numbers[-1], origin=origin, now_ns=now_ns)
    # 6
    salt = files.read_whole(directory, files.SALT_NAME)
    if salt is None or len(salt) != _SALT_BYTES:
        salt = _new_salt(directory)
        writer.append(Entry(kind="log", id="salt_lost"), now_ns)
    writer.segment.sync()
    return writer, salt


def _begin(directory: int, keys: KeyStore, mark: Head | None, *, origin: str, now_ns: int) -> Writer:
    if mark is not None and mark.size > 0:
        raise IntegrityError(
            f"cannot begin an audit log: there is none, and the high-water mark says {mark.size} records", hint=HINT
        )
    private, key = keys.create()
    files.write_whole(directory, files.FIRST_KEY_NAME, f"{key}\n".encode())
    position = Position(last_ns=now_ns, epoch_start_ns=now_ns)
    frame = header_frame(position, number=0, key=key)
    segment = Segment.create(directory, 0, frame)
    position.chain = chain.link(frame)
    keys.destroy_others(key)
    return Writer(directory=directory, origin=origin, segment=segment, position=position, private=private, keys=keys)


def _require_contiguous(numbers: list[int]) -> None:
    for expected, number in enumerate(numbers):
        if number != expected:
            raise IntegrityError(f"cannot trust the audit log: segment {expected} is missing", hint=HINT)


def _scan_last(directory: int, number: int, *, origin: str, mark: Head | None) -> Scan:
    fd = os.open(files.segment_name(number), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        files.require_private(fd, files.segment_name(number))
        return scan(fd, number=number, origin=origin, high_water=mark)
    finally:
        os.close(fd)


def _resume(directory: int, keys: KeyStore, found: Scan, *, number: int, origin: str, now_ns: int) -> Writer:
    segment = Segment(directory, number, found.good_end)
    private, key, lost = keys.load(found.key), found.key, False
    if private is None:
        (private, key), lost = keys.create(), True
    writer = Writer(
        directory=directory, origin=origin, segment=segment, position=found.position, private=private, keys=keys
    )
    if found.dropped_bytes:
        detail: dict[str, str | int | bool] = {
            "dropped_bytes": found.dropped_bytes,
            "dropped_sha256": found.dropped_sha256,
            "last_seq": writer.size - 1,
        }
        recovered = Entry(kind="log", id="recovered", detail=detail)
        writer.append(recovered, now_ns, write=lambda frame: segment.replace_tail(frame, found.file_end))
    if lost:
        _note_lost_key(writer, key, now_ns)
    keys.destroy_others(key)
    return writer


def _note_lost_key(writer: Writer, key: VerifierKey, now_ns: int) -> None:
    position = writer.position
    seq = writer.append(Entry(kind="log", id="key_lost", detail={"epoch": position.epoch + 1, "key": str(key)}), now_ns)
    writer.segment.sync()
    position.epoch += 1
    position.epoch_start_seq, position.epoch_start_ns = seq, now_ns


def _new_salt(directory: int) -> bytes:
    salt = secrets.token_bytes(_SALT_BYTES)
    files.write_whole(directory, files.SALT_NAME, salt)
    return salt
