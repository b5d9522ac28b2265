"""Whom a signature names, and when nobody is believed."""

from __future__ import annotations

import pytest

from attestd.kernel.darwin.signature import origin, read_signature
from tests.fakes.libsystem import DEBUGGED, HARDENED, PLATFORM_STATUS, Code
from tests.support.macs import TEAM, Scene


def read(scene: Scene, code: Code, status: int | None = None):
    """Signature and origin of a process that runs this code."""
    process = scene.mac.spawn(scene.zsh.pid, code)
    process.status = code.status if status is None else status
    signature = read_signature(scene.system, process.pid, process.version)
    return signature, origin(signature)


def test_a_verified_signer(scene: Scene):
    """Team and identifier together are the name, because the identifier alone is anybody's choice."""
    signature, found = read(scene, scene.signed("agent"))
    assert (signature.team, signature.identity, signature.category) == (TEAM, "com.example.agent", 6)
    assert found is not None
    assert (found.kind, found.name, found.verified) == ("codesign", f"{TEAM}/com.example.agent", True)
    assert found.detail == "Developer ID"


def test_apples_own(scene: Scene):
    """Apple's programs have no team; their identifier is the name."""
    _, found = read(scene, scene.apple("ls", "com.apple.ls"))
    assert found is not None
    assert (found.name, found.verified) == ("com.apple.ls", True)


@pytest.mark.parametrize(
    ("facts", "status", "why"),
    [
        ({"category": 10, "status": 0x20000003}, None, "ad hoc"),
        ({"category": 6}, HARDENED & ~1, "not valid"),
        ({"category": 6}, HARDENED | DEBUGGED, "debugged"),
        ({"category": 3}, None, "Apple's chain"),
        ({"category": 5}, None, "Apple's chain"),
        ({"category": 7}, None, "Apple's chain"),
        ({"team": ""}, None, "no team"),
        ({"team": "../../etc/"}, None, "no team"),
        ({"identity": "com.apple zsh"}, None, "identifier"),
        ({"identity": ""}, None, "identifier"),
    ],
)
def test_nobody_is_believed(scene: Scene, facts: dict[str, object], status: int | None, why: str):
    """Such a signature has an origin that is unverified and cannot equal a verified name."""
    _, found = read(scene, scene.signed("agent", **({"identity": "com.apple.zsh"} | facts)), status)
    assert found is not None
    assert not found.verified
    assert found.name.startswith("unverified/")
    assert why in found.detail


def test_a_false_claim_to_be_apples(scene: Scene):
    """Apple's identifier in another's signature carries the other's team."""
    _, found = read(scene, scene.signed("zsh2", "com.apple.zsh"))
    assert found is not None
    assert found.name == f"{TEAM}/com.apple.zsh"


def test_unsigned_code_has_no_origin(scene: Scene):
    """Nothing signed, nobody vouches."""
    signature, found = read(scene, Code("/x", None, 0))
    assert signature.cdhash == ""
    assert found is None


def test_a_macos_without_categories(scene: Scene):
    """There only Apple's own programs are verified, by the flag of the kernel."""
    scene.mac.categories = False
    _, ours = read(scene, scene.signed("agent"))
    _, apples = read(scene, scene.apple("ls", "com.apple.ls"), PLATFORM_STATUS)
    assert ours is not None
    assert apples is not None
    assert (ours.verified, apples.verified) == (False, True)


def test_an_image_that_has_gone(scene: Scene):
    """Answers are never of the next image."""
    agent = scene.agent()
    before = agent.version
    scene.mac.execute(agent.pid, scene.code("other"))
    with pytest.raises(ProcessLookupError):
        read_signature(scene.system, agent.pid, before)


def test_an_error_is_not_an_absence(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """A policy that forbids the question is raised, not read as unsigned."""
    import ctypes
    import errno

    def refused(*_: object) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    agent = scene.agent()
    monkeypatch.setattr(scene.mac, "csops_audittoken", refused)
    with pytest.raises(PermissionError):
        read_signature(scene.system, agent.pid, agent.version)
