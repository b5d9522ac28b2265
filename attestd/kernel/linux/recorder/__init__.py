"""The kernel recorder: a BPF program that remembers processes, a loader without libbpf, and the reader of its maps."""
