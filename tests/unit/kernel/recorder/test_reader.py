"""Opening what is not there. What the reader answers is tested with a loaded recorder, in tests/kernel."""

from __future__ import annotations

import pytest

from attestd.errors import NotPermittedError
from attestd.kernel.linux.recorder.failures import AbsentError
from attestd.kernel.linux.recorder.reader import BpfRecorder


def test_nothing_is_loaded():
    """It is absent (or closed to an ordinary user), and the error says what to do."""
    with pytest.raises((AbsentError, NotPermittedError)) as caught:
        BpfRecorder.open("/sys/fs/bpf/there-is-no-such-recorder")
    assert caught.value.hint
