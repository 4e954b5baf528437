"""Long work in a thread, in pieces, so that the event loop gets its turns.

A thread that computes holds the interpreter for 5 ms at a time (``sys.getswitchinterval``), and the loop waits as long
for it after each call that lets go of the interpreter: every signature, every read, every write. A thread that sleeps
for a moment now and then hands it over at once.
"""

from __future__ import annotations

import threading
import time
from typing import Final

GROUP: Final = 64  # entries between two breaths: about half a millisecond of hashing
_MOMENT: Final = 0.0001  # seconds; nothing at all would be taken back before the loop's thread is awake


def take() -> None:
    """Let others compute, where others are: in the main thread nobody waits for it but who called."""
    if threading.current_thread() is not threading.main_thread():
        time.sleep(_MOMENT)
