"""The recorder contract, on every recorder there is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract import worlds
from tests.contract.recorder_contract import LossContract, RecorderContract, ReuseContract
from tests.contract.worlds import World

ROOT = pytest.mark.root
BPF = pytest.param("bpf", marks=ROOT)


def _world(request: pytest.FixtureRequest) -> Iterator[World]:
    with worlds.world(request.param) as made:
        yield made


class TestRecorders(RecorderContract):
    world = pytest.fixture(name="world", params=["fake", "fake-fallback", "connector", BPF])(staticmethod(_world))


class TestReuse(ReuseContract):
    world = pytest.fixture(name="world", params=["fake", "fake-fallback", pytest.param("connector", marks=ROOT), BPF])(
        staticmethod(_world)
    )


class TestLosses(LossContract):
    world = pytest.fixture(name="world", params=["fake", "fake-fallback", "connector"])(staticmethod(_world))
