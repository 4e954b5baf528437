"""``agentbus dev``: a whole trust domain for the agents of a file, served again whenever the file is saved."""
