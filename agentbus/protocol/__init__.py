"""From a message to a frame and back: sealing, opening, exchanges and the engine. Pure: ``now`` and entropy go in."""
