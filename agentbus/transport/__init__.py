"""Frames between connections: the port, and one adapter for each network."""
