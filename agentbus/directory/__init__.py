"""The directory: its log of key events, the rules of who may change what, and where it is kept."""
