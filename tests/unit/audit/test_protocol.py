"""The door to the log."""

from __future__ import annotations

from attestd.audit.log import AuditLogFile
from attestd.audit.model import Record
from attestd.audit.protocol import AuditLog, Entry


def test_an_entry_is_a_record_without_number_and_time():
    """Every field of a record but these two is given by the caller, under the same name."""
    assert set(Entry.__struct_fields__) == set(Record.__struct_fields__) - {"seq", "time_ns"}


def test_details_of_entries_are_not_shared():
    """The empty default is a new dictionary each time."""
    Entry(kind="a").detail["x"] = 1
    assert Entry(kind="b").detail == {}


def test_the_file_log_has_every_method_of_the_door():
    """Whoever programs against the protocol can be given the file log."""
    methods = [name for name in vars(AuditLog) if not name.startswith("_")]
    assert methods
    assert all(callable(getattr(AuditLogFile, name)) for name in methods)
