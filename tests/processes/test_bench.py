"""``agentbus bench --json`` prints its figures; which they are is nobody's business here."""

from __future__ import annotations

import json

from tests.processes.test_demo import run


def test_bench_prints_every_figure() -> None:
    done = run("bench", "--json", "--seconds", "0.2")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    both = {"request_rtt_us", "requests_per_s", "sends_per_s"}
    alone = {"seal_us", "open_us", "batch_seal_us", "batch_open_us"}
    assert set(figures) == both | alone | {"unsigned", "settings"}
    assert set(figures["unsigned"]) == both and set(figures["request_rtt_us"]) == {"p50", "p99"}
    assert all(figures[name] > 0 for name in alone | {"requests_per_s", "sends_per_s"})
