"""The public way to read what happened: open logs, verify them, then ask.

::

    evidence = Evidence.open("logs/planner", directory="logs/directory", root=thumbprint)
    report = evidence.verify()
    for message in evidence.messages(user="alice", accepted=True):
        print(message.time, message.sender, message.action)
"""

from __future__ import annotations

from agentbus.audit.evidence import Evidence
from agentbus.audit.files import read_events
from agentbus.audit.message import Message
from agentbus.log.reconcile import Finding, Reconciliation
from agentbus.log.report import VERDICTS, Report, Verdict

__all__ = ["VERDICTS", "Evidence", "Finding", "Message", "Reconciliation", "Report", "Verdict", "read_events"]
