"""The agents that ship: what serves, serves as an agent."""
