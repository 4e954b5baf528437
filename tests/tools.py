"""Programs of the system that a few tests need: installed where that is allowed (root on Debian), else named."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest


@cache
def _install(packages: tuple[str, ...]) -> str:
    """Install Debian packages; empty when that worked, else why not."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "not root on Debian"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]):
        arguments = [*command, *packages] if "install" in command else command
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            return (done.stderr or done.stdout).strip().splitlines()[-1]
    return ""


def need(*wanted: str, packages: tuple[str, ...]) -> None:
    """Go on when every path or program is there; else install them, or skip the test and say what is missing.

    Args:
        wanted: Absolute paths, or names of programs.
        packages: The Debian packages they are in.
    """

    def missing() -> list[str]:
        return [one for one in wanted if not (Path(one).exists() if "/" in one else shutil.which(one))]

    if missing():
        why = _install(packages)
        if missing():
            pytest.skip(f"not run: {', '.join(missing())} missing; apt-get install {' '.join(packages)} ({why})")
