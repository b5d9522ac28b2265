"""attestctl: one file per command; speaks only control (and reads an audit directory for offline verification)."""
