"""The composition root: configuration, wiring, life cycle, control server, demo."""
