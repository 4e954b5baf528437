"""``agentbus log``: one file for each verb or pair of verbs."""
