"""Deciding: caller, grants, policy and request in, Permit or Deny out. Pure."""
