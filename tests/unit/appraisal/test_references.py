"""Reference values: our own programs and what looks like them."""

from __future__ import annotations

import msgspec

from attestd.appraisal.references import named, objection
from attestd.evidence.model import Script
from tests.support.evidence import REFERENCES, attestctl, inline_of, link_of, python_client, shim

(RELAY,) = REFERENCES.relays
(CLI,) = REFERENCES.cli


def test_named_by_both_digests():
    """Interpreter and script together name the program; each alone does not."""
    assert named(shim(), REFERENCES.relays) is RELAY
    assert named(attestctl(), REFERENCES.cli) is CLI
    assert named(shim(), REFERENCES.cli) is None
    assert named(python_client(), REFERENCES.relays) is None


def test_what_has_no_script_digest_is_not_named():
    """Unreadable, inline and script-less processes match no reference, nor does a script without a digest."""
    bare = msgspec.structs.replace(shim(), script=Script(kind="script", interpreter="python"))
    inline = shim(script=msgspec.structs.replace(inline_of("python", "x"), sha256=RELAY.script_sha256))
    for link in (link_of(None), link_of("/usr/bin/python3.11"), bare, inline):
        assert named(link, REFERENCES.relays) is None


def test_no_objection():
    """The installed program, undisturbed, is accepted in both modes."""
    for user_mode in (False, True):
        assert objection(shim(), RELAY, user_mode=user_mode, sandboxed=False) == ""


def test_script_without_facts():
    """A digest without the facts of its file is not enough."""
    blind = shim(script=Script(kind="script", interpreter="python", sha256=RELAY.script_sha256))
    assert named(blind, REFERENCES.relays) is RELAY
    assert objection(blind, RELAY, user_mode=True, sandboxed=False) == "unreadable"


def test_any_posture_is_an_objection():
    """Search paths count too, because the wrapper imports the rest of its code; what cannot matter does not."""
    for posture in ("env PYTHONPATH=/x", "env LD_LIBRARY_PATH=/x", "map /x.so"):
        assert "preloads" in objection(shim(posture=(posture,)), RELAY, user_mode=True, sandboxed=False)
    assert objection(shim(posture=("env NODE_OPTIONS=--require=/x",)), RELAY, user_mode=True, sandboxed=False) == ""
