"""agentbus: cooperating agents whose every message is signed and carries the chain of authority behind it."""
