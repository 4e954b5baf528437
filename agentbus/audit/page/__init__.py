"""One self-contained HTML page about what happened, for somebody who was not there."""

from __future__ import annotations

from agentbus.audit.page.page import report_page

__all__ = ["report_page"]
