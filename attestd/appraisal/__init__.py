"""Appraisal: facts against reference values and class tables, giving an attestation result. Pure."""
