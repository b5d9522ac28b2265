"""The documentation. Its reference pages are generated: see ``docs.generate``."""
