"""Seals in nftables: rules, one transaction to install them, and the listeners of redirected connections."""
