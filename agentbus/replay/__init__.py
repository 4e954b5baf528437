"""Replaying what an agent did: the recorded messages once more, with the recorded results or with new ones.

::

    report = replay("logs/planner", planner, directory="logs/directory", root=thumbprint)
    assert report.ok, report.first
"""

from agentbus.replay.api import MODES, replay
from agentbus.replay.compare import Comparator
from agentbus.replay.report import STATUSES, Divergence, ReplayReport, Result

__all__ = ["MODES", "STATUSES", "Comparator", "Divergence", "ReplayReport", "Result", "replay"]
