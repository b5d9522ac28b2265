"""Starts and supervises stdio servers through a separate launcher process."""
