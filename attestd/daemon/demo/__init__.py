"""The throw-away instance of ``attestd demo``."""
