"""KERN_PROCARGS2: recorded bytes, and what is not believed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.kernel.darwin.procargs import parse_procargs
from tests.fakes.libsystem import procargs

RECORDED = (
    b"\x03\x00\x00\x00/usr/local/bin/node\x00\x00\x00\x00\x00"
    b"node\x00/Users/dev/client.js\x00--quiet\x00HOME=/Users/dev\x00LANG=C\x00\x00"
)


def test_recorded_bytes():
    """Count, path, padding, words, environment."""
    words = parse_procargs(RECORDED)
    assert words.argv == ("node", "/Users/dev/client.js", "--quiet")
    assert words.environ == (("HOME", "/Users/dev"), ("LANG", "C"))


def test_a_withheld_environment():
    """The kernel cuts after the last word; that is an empty environment."""
    assert parse_procargs(RECORDED[: RECORDED.index(b"HOME")]).environ == ()


def test_an_empty_first_word_does_not_shift_the_others():
    """argv[0] = '' would make the environment look like words; it is not believed."""
    raw = procargs("/usr/local/bin/node", ("", "/Users/dev/evil.js"), ("x=/Users/dev/client.js",))
    with pytest.raises(ValueError, match="padding"):
        parse_procargs(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"\x01\x00", struct.pack("<i", 0) + b"/x\0", struct.pack("<i", 2) + b"/x", b"\xff" * 8]
)
def test_what_is_cut_is_refused(raw: bytes):
    """Too few bytes or words are a ValueError."""
    with pytest.raises(ValueError, match="cannot parse"):
        parse_procargs(raw)


def test_too_few_words_are_refused():
    """A count beyond the words that are there."""
    with pytest.raises(ValueError, match="expected 9"):
        parse_procargs(struct.pack("<i", 9) + RECORDED[4:40])


_WORD = st.text(st.characters(min_codepoint=1, codec="utf-8"), min_size=1, max_size=20)


@given(
    path=_WORD,
    argv=st.lists(st.text(st.characters(min_codepoint=1, codec="utf-8"), max_size=9), max_size=5),
    first=_WORD,
)
def test_words_come_back(path: str, argv: list[str], first: str):
    """Whatever was executed with a first word is read back as it was."""
    words = (first, *argv)
    assert parse_procargs(procargs(path, words, ("A=b",))).argv == words


@given(st.binary(max_size=200))
def test_any_bytes_give_words_or_an_error(raw: bytes):
    """No input does anything else."""
    try:
        parse_procargs(raw)
    except ValueError:
        return
