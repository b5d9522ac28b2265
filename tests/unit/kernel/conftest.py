from __future__ import annotations

from collections.abc import Iterator

import pytest

from attestd.kernel.linux.files import FileReader
from attestd.kernel.linux.labels import OwnNamespaces
from attestd.kernel.linux.origins import Origins
from attestd.kernel.linux.reading import Sources
from attestd.kernel.linux.table import ProcessTable


@pytest.fixture(name="sources")
def _sources() -> Sources:
    return Sources(FileReader(), Origins(), OwnNamespaces.read())


@pytest.fixture(name="table")
def _table(sources: Sources) -> Iterator[ProcessTable]:
    table = ProcessTable(sources, 64)
    yield table
    table.close()
