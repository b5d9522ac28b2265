"""The policy enforcement point: listeners, connections and links (I/O); session, proof and bindings (pure)."""
