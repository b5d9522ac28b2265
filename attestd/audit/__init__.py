"""The audit log: every decision is written to it before its effect, and what was written stays provable."""
