"""Who did what for whom: an auditor's answer, from logs for which nobody has to be trusted. Read it top down.

python auditor.py bus/logs/* --directory bus/directory/directory --root THUMBPRINT
"""

import argparse
from collections import Counter
from pathlib import Path

from agentbus.audit import Evidence, Report


def verdicts(report: Report) -> str:
    """What can be believed, and what not."""
    answers = {True: "yes", False: "NO", None: "not judged"}
    lines = [f"{name:14} {answers[one.ok]:11} {one.checked} checked" for name, one in report.items()]
    return "\n".join(lines + [f"  {problem}" for one in report.values() for problem in one.problems])


def who_did_what_for_whom(evidence: Evidence) -> str:
    """One line for each user, path of authority and kind of message, with how often and how it was answered."""
    asked = [message for message in evidence.messages() if message.asks and message.direction == "received"]
    counted = Counter(
        (
            message.user.short if message.user else "itself",
            " → ".join(who.short for who in message.path),
            message.recipient.short,
            message.action,
            message.code,
        )
        for message in asked
    )
    return "\n".join(
        f"for {user}: {path} asked {to} to {action}: {code}, {times} ×"
        for (user, path, to, action, code), times in sorted(counted.items())
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", nargs="+", type=Path, help="folders of nodes' logs")
    parser.add_argument("--directory", required=True, type=Path, help="the folder of the directory's log")
    parser.add_argument("--root", help="the pinned thumbprint of the root key; else the profile's")
    options = parser.parse_args()

    evidence = Evidence.open(*options.logs, directory=options.directory, root=options.root)
    report = evidence.verify()
    print(verdicts(report))
    print(who_did_what_for_whom(evidence))
    return 0 if report.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
