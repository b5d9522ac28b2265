"""The macOS kernel room. This version has none: it runs on Linux only."""
