"""ZeroMQ under CURVE: encrypted, mutually authenticated connections over TCP. There is no insecure mode."""

from agentbus.transport.zeromq.transport import ZmqTransport

__all__ = ["ZmqTransport"]
