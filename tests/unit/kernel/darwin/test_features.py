"""What a Mac offers, and what doctor says where it does not."""

from __future__ import annotations

from attestd.kernel.darwin.features import probe
from tests.support.macs import Scene, scene


def present(made: Scene) -> dict[str, bool]:
    """Names and answers."""
    return {feature.name: feature.present for feature in probe(made.system)}


def test_a_recent_mac(scene: Scene):
    """Everything but other users' secrets and the writer of a message."""
    assert {name for name, there in present(scene).items() if not there} == {"other_users", "message_writer"}


def test_as_root():
    """Root may read other users' processes."""
    with scene(daemon_uid=0) as made:
        assert present(made)["other_users"]


def test_an_older_mac(scene: Scene):
    """What it does not know is absent, with words for it."""
    scene.mac.categories = scene.mac.original_parents = False
    found = {feature.name: feature for feature in probe(scene.system)}
    assert not found["validation_category"].present
    assert "level 2" in found["validation_category"].detail
    assert not found["original_parent"].present
