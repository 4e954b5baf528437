"""The public Bus: connect to a trust domain, serve agents, speak for oneself or for a user."""
