"""``agentbus bench``: the command, and what it measures."""
