"""``agentbus run``: one agent, in one process or several."""
