"""The kernel's process events by netlink: lineage without BPF, the fallback."""
