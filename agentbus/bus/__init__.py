"""The public Bus: connect to a trust domain, serve agents, speak for oneself or for a user."""

from agentbus.bus.base import Bus, Opening
from agentbus.bus.local import LocalBus
from agentbus.bus.opening import connect_bus, enrol_identity, rotate_identity, run_agent

__all__ = ["Bus", "LocalBus", "Opening", "connect_bus", "enrol_identity", "rotate_identity", "run_agent"]
