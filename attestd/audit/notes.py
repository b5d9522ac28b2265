"""C2SP signed notes and tlog checkpoints with Ed25519, and the chain of epoch keys. Pure apart from cryptography.

1. A note is text, an empty line and signature lines (c2sp.org/signed-note v1). Unknown signatures are ignored; a
   failing signature of a known key refuses the whole note; a note without a verified signature is refused.
2. A checkpoint is a note whose text is origin, size, base64 root and extension lines (c2sp.org/tlog-checkpoint v1).
   Ours has the extension lines ``attestd/chain``, ``attestd/epoch``, ``attestd/time`` and, where an epoch ends,
   ``attestd/next-key``; all are signed. Lines that are not known are kept out of the way: they may be newer.
3. Each epoch has its own key. The last checkpoint of epoch i, signed by key i, names key i+1; then key i is destroyed.
   So whoever takes today's key cannot sign yesterday's records again. Every key follows from the first public key.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from attestd.errors import IntegrityError

_ED25519 = b"\x01"
_DASH = "\u2014 "
_MAX_SIGNATURES = 64
_EXTENSION = "attestd/"


class VerifierKey(msgspec.Struct, frozen=True):
    """A public key with its name. ``str()`` is the vkey form ``name+id+base64``."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """The first four bytes of SHA-256 over name, newline, type and key."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint states."""

    origin: str
    size: int
    """Number of records."""
    root: bytes
    chain: bytes = b""
    """Hash of the frame before the checkpoint, 32 bytes; empty in a checkpoint of another log."""
    epoch: int = 0
    time_ns: int = 0
    next_key: VerifierKey | None = None


def is_name(name: str) -> bool:
    """Whether this may name a key or a log: not empty, no space, no plus, no control character."""
    return bool(name) and not any(char.isspace() or char == "+" or char < " " for char in name)


def parse_key(text: str) -> VerifierKey:
    """Parse a vkey. Raises IntegrityError when it is not a well-formed Ed25519 key."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = _decode64(encoded)
    if raw is None or len(raw) != 33 or raw[:1] != _ED25519 or not is_name(name):
        raise _refused("key", f"got {text[:80]!r}, expected name+id+base64 of an Ed25519 key")
    key = VerifierKey(name, raw[1:])
    if key.id.hex() != key_id:
        raise _refused("key", f"got id {key_id[:8]!r}, expected {key.id.hex()}")
    return key


def public_key(name: str, private: Ed25519PrivateKey) -> VerifierKey:
    """The verifier key that belongs to a private key."""
    return VerifierKey(name, private.public_key().public_bytes_raw())


def sign(text: str, name: str, private: Ed25519PrivateKey) -> str:
    """A note with one signature. Raises ValueError when the text has control characters or no newline at its end."""
    if not text.endswith("\n") or any(char < " " and char != "\n" for char in text) or not is_name(name):
        raise ValueError("cannot sign a note: the text must end in a newline and hold no control characters")
    signature = public_key(name, private).id + private.sign(text.encode())
    return f"{text}\n{_DASH}{name} {base64.b64encode(signature).decode()}\n"


def verify_note(note: str, keys: Iterable[VerifierKey]) -> str:
    """The text of a note that at least one of ``keys`` signed. Raises IntegrityError."""
    text, signatures = _split(note)
    known = {(key.name, key.id): key for key in keys}
    verified = False
    for name, raw in signatures:
        key = known.get((name, raw[:4]))
        if key is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], text.encode())
        except InvalidSignature:
            raise _refused("note", f"the signature of {name} does not match the text") from None
        verified = True
    if not verified:
        names = ", ".join(f"{name}+{raw[:4].hex()}" for name, raw in signatures)
        expected = ", ".join(f"{name}+{key_id.hex()}" for name, key_id in known)
        raise _refused("note", f"signed by {names}, expected {expected or 'a known key'}")
    return text


def format_checkpoint(checkpoint: Checkpoint) -> str:
    """The text of a checkpoint, to be signed."""
    lines = [checkpoint.origin, str(checkpoint.size), _encode64(checkpoint.root)]
    if checkpoint.chain:
        lines.append(f"{_EXTENSION}chain {_encode64(checkpoint.chain)}")
        lines.append(f"{_EXTENSION}epoch {checkpoint.epoch}")
        lines.append(f"{_EXTENSION}time {checkpoint.time_ns}")
    if checkpoint.next_key is not None:
        lines.append(f"{_EXTENSION}next-key {checkpoint.next_key}")
    return "\n".join(lines) + "\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the text of a checkpoint, without its signatures. Raises IntegrityError."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise _refused("checkpoint", "expected origin, size, root and extension lines, none of them empty")
    origin, size, root64, *extensions = lines
    root = _decode64(root64)
    fields: dict[str, str] = {}
    for line in extensions:
        name, _, value = line.partition(" ")
        if name.startswith(_EXTENSION):
            if name.removeprefix(_EXTENSION) in fields:
                raise _refused("checkpoint", f"the line {name} is there twice")
            fields[name.removeprefix(_EXTENSION)] = value
    chain = _decode64(fields.get("chain", ""))
    if root is None or len(root) != 32 or chain is None or len(chain) not in (0, 32):
        raise _refused("checkpoint", "the root or the chain is not the base64 of 32 bytes")
    return Checkpoint(
        origin=origin,
        size=_number(size),
        root=root,
        chain=chain,
        epoch=_number(fields.get("epoch", "0")),
        time_ns=_number(fields.get("time", "0")),
        next_key=parse_key(fields["next-key"]) if "next-key" in fields else None,
    )


def read_checkpoint(note: str) -> Checkpoint:
    """What a signed checkpoint states, *without* verifying who signed it. Raises IntegrityError."""
    return parse_checkpoint(_split(note)[0])


class KeyChain:
    """Which key may sign the next checkpoint. Begins with a key that is trusted."""

    def __init__(self, first: VerifierKey, *, epoch: int = 0) -> None:
        self.key = first
        self.epoch = epoch

    def accept(self, note: str) -> Checkpoint:
        """Verify a checkpoint with the key of the current epoch and go on to the next key if it names one.

        Raises IntegrityError; then nothing changed.
        """
        checkpoint = parse_checkpoint(verify_note(note, [self.key]))
        if checkpoint.origin != self.key.name or checkpoint.epoch != self.epoch:
            got = f"epoch {checkpoint.epoch} of {checkpoint.origin}"
            raise _refused("checkpoint", f"got {got}, expected epoch {self.epoch} of {self.key.name}")
        if checkpoint.next_key is not None:
            if checkpoint.next_key.name != self.key.name:
                raise _refused("checkpoint", f"got a next key of {checkpoint.next_key.name}, expected {self.key.name}")
            self.key = checkpoint.next_key
            self.epoch += 1
        return checkpoint


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    if any(char < " " and char != "\n" for char in note):
        raise _refused("note", "it holds control characters")
    text, blank, block = note.rpartition("\n\n")
    if not blank or not text or not block.endswith("\n"):
        raise _refused("note", "expected text, an empty line and signature lines")
    lines = block[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise _refused("note", f"got {len(lines)} signatures, expected at most {_MAX_SIGNATURES}")
    signatures = []
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        raw = _decode64(encoded)
        if not line.startswith(_DASH) or not is_name(name) or raw is None or len(raw) < 5:
            raise _refused("note", f"got the signature line {line[:80]!r}, expected a dash, a name and base64")
        signatures.append((name, raw))
    return text + "\n", signatures


def _encode64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode64(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if _encode64(raw) == text else None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0") or len(text) > 20:
        raise _refused("checkpoint", f"got {text[:24]!r}, expected a decimal number without leading zeroes")
    return int(text)


def _refused(kind: str, what: str) -> IntegrityError:
    hint = "compare with a copy of the log or of its public key"
    return IntegrityError(f"cannot verify the {kind}: {what}", hint=hint)
