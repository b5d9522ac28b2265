"""Grants: who may do what, until when; and who waits for a decision."""
