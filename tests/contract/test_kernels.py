"""The kernel contract, on every kernel room there is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract import kernels
from tests.contract.kernel_contract import KernelContract
from tests.contract.kernels import World


def _world(request: pytest.FixtureRequest) -> Iterator[World]:
    with kernels.world(request.param) as made:
        yield made


class TestKernels(KernelContract):
    world = pytest.fixture(name="world", params=["linux", "darwin"])(staticmethod(_world))
