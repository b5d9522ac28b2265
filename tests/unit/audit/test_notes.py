"""Signed notes, checkpoints and the chain of epoch keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestd.audit import notes
from attestd.errors import IntegrityError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/audit/notes.json").read_text())
NAME = "attestd.test/audit"
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 5)]
PUBLIC = [notes.public_key(NAME, key) for key in KEYS]


def checkpoint(**changes: Any):
    fields = {"origin": NAME, "size": 3, "root": b"r" * 32, "chain": b"c" * 32, "epoch": 0, "time_ns": 9}
    return notes.Checkpoint(**(fields | changes))


def sealed(key: Any, **changes: Any):
    return notes.sign(notes.format_checkpoint(checkpoint(**changes)), NAME, key)


def test_the_published_note_verifies():
    """The example key and note of the specification's reference implementation are accepted, and the text returned."""
    key = notes.parse_key(VECTORS["key"])
    assert str(key) == VECTORS["key"]
    assert notes.verify_note(VECTORS["note"], [key]) == VECTORS["note"].split("\n\n")[0] + "\n"


@pytest.mark.parametrize("position", [0, 10, 60, 99])
def test_the_published_note_with_one_letter_changed_is_refused(position: int):
    """A changed letter of the text breaks the signature."""
    note = VECTORS["note"]
    changed = note[:position] + chr(ord(note[position]) ^ 1) + note[position + 1 :]
    with pytest.raises(IntegrityError):
        notes.verify_note(changed, [notes.parse_key(VECTORS["key"])])


def test_the_published_checkpoint_is_read():
    """The example of the checkpoint specification parses to its origin, size and root."""
    read = notes.read_checkpoint(VECTORS["checkpoint"])
    assert read.origin == VECTORS["checkpoint_origin"]
    assert read.size == VECTORS["checkpoint_size"]
    assert read.root.hex() == VECTORS["checkpoint_root"]


def test_a_checkpoint_comes_back_as_it_was_signed():
    """Formatting, signing, verifying and parsing lose nothing, the next key included."""
    stated = checkpoint(next_key=PUBLIC[1])
    note = notes.sign(notes.format_checkpoint(stated), NAME, KEYS[0])
    assert notes.parse_checkpoint(notes.verify_note(note, [PUBLIC[0]])) == stated


def test_a_note_of_an_unknown_key_is_refused():
    """Without a known signature there is no text; the error names both keys."""
    with pytest.raises(IntegrityError, match=r"signed by .*, expected "):
        notes.verify_note(sealed(KEYS[0]), [PUBLIC[1]])
    with pytest.raises(IntegrityError, match="expected a known key"):
        notes.verify_note(sealed(KEYS[0]), [])


def test_unknown_signatures_beside_a_known_one_are_ignored():
    """A witness may sign too."""
    note = sealed(KEYS[0])
    foreign = notes.sign(notes.format_checkpoint(checkpoint()), "witness.example", KEYS[2]).split("\n\n")[1]
    assert notes.verify_note(note + foreign, [PUBLIC[0]])


def test_a_failing_signature_of_a_known_key_refuses_the_note():
    """One good signature does not excuse a bad one of another known key."""
    note = sealed(KEYS[0])
    bad = sealed(KEYS[1], size=4).split("\n\n")[1]
    with pytest.raises(IntegrityError, match="does not match"):
        notes.verify_note(note + bad, [PUBLIC[0], PUBLIC[1]])


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text\n",
        "text\n\n",
        "text\n\n- name AAAAAAA=\n",
        "text\n\n\u2014 name\n",
        "text\n\n\u2014 name AAAA\n",
        "text\n\n\u2014 na+me AAAAAAA=\n",
        "text\n\n\u2014 name AAAAAA!=\n",
        "text\n\n\u2014 name AAAAAAA=",
        "te\x07xt\n\n\u2014 name AAAAAAA=\n",
        "text\n\n" + "\u2014 name AAAAAAA=\n" * 65,
    ],
)
def test_what_is_no_note_is_refused(note: str):
    """Each malformed note is refused before any signature is looked at."""
    with pytest.raises(IntegrityError, match="cannot verify the note"):
        notes.verify_note(note, PUBLIC)


@pytest.mark.parametrize(
    "key",
    ["", "name", "name+00000000", VECTORS["key"].replace("c74f", "c74e"), VECTORS["key"][:-4], "a b+00000000+AQ=="],
)
def test_what_is_no_key_is_refused(key: Any):
    """Name, id and key must fit together."""
    with pytest.raises(IntegrityError, match="cannot verify the key"):
        notes.parse_key(key)


@pytest.mark.parametrize(
    "text",
    [
        "o\n1\n",
        f"o\n01\n{'A' * 43}=\n",
        f"o\n-1\n{'A' * 43}=\n",
        f"o\n\u0661\n{'A' * 43}=\n",
        f"o\n1\n{'A' * 42}B=\n",
        "o\n1\nAAAA\n",
        f"o\n1\n{'A' * 43}=\n\n",
        f"o\n1\n{'A' * 43}=",
        f"o\n1\n{'A' * 43}=\nattestd/epoch 1\nattestd/epoch 1\n",
        f"o\n1\n{'A' * 43}=\nattestd/next-key x\n",
        f"o\n1\n{'A' * 43}=\nattestd/chain AAAA\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str):
    """Leading zeroes, foreign digits, loose base64, missing or doubled lines: none is a checkpoint."""
    with pytest.raises(IntegrityError):
        notes.parse_checkpoint(text)


def test_lines_of_a_newer_version_are_ignored():
    """An extension line that we do not know does not matter."""
    text = notes.format_checkpoint(checkpoint()) + "attestd/new thing\nother line\n"
    assert notes.parse_checkpoint(text) == checkpoint()


@pytest.mark.parametrize(
    ("text", "name"), [("no newline", NAME), ("bell\x07\n", NAME), ("fine\n", "a name"), ("x\n", "")]
)
def test_what_would_be_no_note_is_not_signed(text: str, name: str):
    """We sign only what others accept."""
    with pytest.raises(ValueError, match="cannot sign"):
        notes.sign(text, name, KEYS[0])


def test_the_key_chain_follows_every_epoch():
    """From the first key alone, each epoch's last checkpoint leads to the next key."""
    follow = notes.KeyChain(PUBLIC[0])
    for epoch in range(3):
        follow.accept(sealed(KEYS[epoch], epoch=epoch))
        follow.accept(sealed(KEYS[epoch], epoch=epoch, next_key=PUBLIC[epoch + 1]))
    assert (follow.key, follow.epoch) == (PUBLIC[3], 3)


def test_todays_key_cannot_sign_yesterdays_epoch():
    """A checkpoint of epoch 0 signed with the key of epoch 1 is refused, and the state stays."""
    follow = notes.KeyChain(PUBLIC[0])
    with pytest.raises(IntegrityError):
        follow.accept(sealed(KEYS[1], epoch=0))
    assert (follow.key, follow.epoch) == (PUBLIC[0], 0)


def test_an_old_key_signs_nothing_after_its_epoch():
    """Once the next key is named, the old one is no longer believed."""
    follow = notes.KeyChain(PUBLIC[0])
    follow.accept(sealed(KEYS[0], next_key=PUBLIC[1]))
    with pytest.raises(IntegrityError):
        follow.accept(sealed(KEYS[0], epoch=0))


def test_another_epoch_or_log_is_refused_though_signed():
    """The signature alone is not enough: origin and epoch must be those expected."""
    follow = notes.KeyChain(PUBLIC[0])
    with pytest.raises(IntegrityError, match="epoch 5"):
        follow.accept(sealed(KEYS[0], epoch=5))
    with pytest.raises(IntegrityError, match=r"other\.example"):
        follow.accept(sealed(KEYS[0], origin="other.example"))
    with pytest.raises(IntegrityError, match="a next key of"):
        follow.accept(sealed(KEYS[0], next_key=notes.public_key("other.example", KEYS[1])))
