"""What the accountable program is made of, for rules on how long a grant for it may last."""

from __future__ import annotations

from attestd.appraisal.model import AttestationResult
from attestd.evidence.model import Evidence


def runs(evidence: Evidence, result: AttestationResult) -> str:
    """``image``, or the kind of the accountable link's script (see ``Script.kind``).

    ``unresolved`` where the digests that the program digest is made of could not be read.
    """
    link = evidence.chain[result.accountable]
    if link.exe is None or link.exe.sha256 is None:
        return "unresolved"
    if link.script is None:
        return "image"
    if link.script.kind in ("script", "module") and link.script.sha256 is None:
        return "unresolved"
    return link.script.kind
