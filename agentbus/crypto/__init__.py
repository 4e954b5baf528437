"""Keys, signatures with one purpose each, Merkle trees (RFC 9162) and signed notes (C2SP)."""
