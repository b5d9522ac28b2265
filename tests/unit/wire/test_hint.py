"""The id of what is not a message."""

from __future__ import annotations

import pytest

from attestd.wire.hint import id_hint


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":5,"method":"x"', 5),
        (b'{"jsonrpc": "2.0", "id": -5, "method"', -5),
        (b'{"id":"abc","method"', "abc"),
        (b'{"method":"x","jsonrpc":"2.0","id":12}', 12),
        (b'{"result":{},"jsonrpc":"2.0","id":"q"}', "q"),
        (b'{"method":"x","params":{"jsonrpc":"2.0","id":12}}', None),
        (b'{"id":true,"method"', None),
        (b'{"id":1.5,"method"', None),
        (b'{"id":' + b"9" * 400 + b",", None),
        (b'{"id":"a\\"b",', None),
        (b'[{"id":1,', None),
        (b"", None),
    ],
)
def test_hint(data: bytes, expected: str | int | None):
    """An id counts at the two places where serialisers write it, and nowhere else."""
    assert id_hint(data, data) == expected
