"""The only code that asks the operating system: one package per platform, behind one protocol."""
