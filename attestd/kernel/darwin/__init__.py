"""The macOS kernel room (docs/macos.md): libSystem through ctypes, nothing compiled. Not yet proven on hardware."""
