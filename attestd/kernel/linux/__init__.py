"""Linux: evidence from ``/proc``, pidfds, socket options and netlink. Imported on Linux only."""
