"""What can go wrong with the recorder, for a person to read."""

from __future__ import annotations

import errno
import os

from attestd.errors import AttestdError, NotPermittedError

_NEEDED = "it needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and the BPF file system must be writable"


class RecorderError(AttestdError):
    """The recorder cannot be loaded, read or unloaded."""

    code = "recorder"


class FormatError(RecorderError):
    """An ELF or BTF image is not as it must be; the message names the place and what was found there."""

    code = "recorder_format"


class AbsentError(RecorderError):
    """Nothing is loaded."""

    code = "recorder_absent"


class LayoutError(RecorderError):
    """What is loaded was made by another version of attestd and is not understood."""

    code = "recorder_layout"


READERS = "root may read it, and the group that attestd-recorder load --group names"


def refused(what: str, error: OSError, detail: str = "", hint: str = _NEEDED) -> AttestdError:
    """The error for a system call that was refused while doing ``what`` (an infinitive, as in "load the program")."""
    reason = os.strerror(error.errno or 0).lower()
    text = f"cannot {what}: {reason}" + (f"\n{detail.strip()}" if detail.strip() else "")
    if error.errno in {errno.EPERM, errno.EACCES} and not detail.strip():
        return NotPermittedError(text, hint=hint)
    return RecorderError(text)
