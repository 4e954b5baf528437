"""Where a person's or a service's own files live. Loads nothing: the shortest command needs it, too."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Where profiles and keys live: ``AGENTBUS_HOME``, else the platform's configuration folder."""
    chosen = os.environ.get("AGENTBUS_HOME")
    if chosen:
        return Path(chosen)
    import platformdirs  # 30 ms

    return Path(platformdirs.user_config_dir("agentbus"))


def key_path(name: str) -> Path:
    """Where the key file of ``name`` is kept under :func:`home`."""
    return home() / "keys" / f"{name.rpartition('://')[2].replace('/', '__')}.json"
