"""Everything that step 2 needs besides the evidence, of one generation of the configuration. Pure."""

from __future__ import annotations

import msgspec

from attestd.appraisal.appraise import appraise
from attestd.appraisal.classes import ClassTable
from attestd.appraisal.digests import Naming
from attestd.appraisal.memo import Memo
from attestd.appraisal.model import AttestationResult
from attestd.appraisal.references import References
from attestd.evidence.model import Evidence


class Appraiser(msgspec.Struct, frozen=True, kw_only=True):
    """What step 2 needs besides the evidence; and what it said before, for it says the same of the same evidence."""

    table: ClassTable
    references: References
    naming: Naming
    memo: Memo = msgspec.field(default_factory=Memo)

    def appraise(self, evidence: Evidence) -> AttestationResult:
        """The result of the evidence. Raises EvidenceError."""
        known = self.memo.find(evidence)
        if known is None:
            known = appraise(evidence, self.table, self.references, self.naming)
            self.memo.keep(evidence, known)
        return known
