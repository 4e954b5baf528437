"""``agentbus bench``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from agentbus.cli.output import json_option, run_async, say


@click.command()
@click.option("--seconds", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, help="For each figure.")
@json_option
def bench(seconds: float, as_json: bool) -> None:
    """Signed against unsigned on this machine."""
    from agentbus.cli.bench.measure import measure

    with tempfile.TemporaryDirectory(prefix="agentbus-bench-") as folder:
        figures = run_async(measure(Path(folder), seconds))
    ratio = figures["requests_per_s"] / figures["unsigned"]["requests_per_s"]
    text = (
        f"round trip     p50 {figures['request_rtt_us']['p50']:.0f} µs, p99 {figures['request_rtt_us']['p99']:.0f} µs"
        f"  (unsigned {figures['unsigned']['request_rtt_us']['p50']:.0f} µs)\n"
        f"requests/s     {figures['requests_per_s']:.0f}  (unsigned {figures['unsigned']['requests_per_s']:.0f};"
        f" {ratio:.2f} of it)\n"
        f"sends/s        {figures['sends_per_s']:.0f}, each with a signed receipt"
        f"  (unsigned {figures['unsigned']['sends_per_s']:.0f}, without)\n"
        f"seal, open     {figures['seal_us']:.1f} µs, {figures['open_us']:.1f} µs alone;"
        f" {figures['batch_seal_us']:.1f} µs, {figures['batch_open_us']:.1f} µs at 64 a batch"
    )
    say(figures, text, as_json=as_json)
