"""``agentbus demo``."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from agentbus.cli.output import json_option, run_async

CODES: Final = {
    "config.data": "The folder for the logs is not empty.",
}

QUESTION = "How does the with statement decide whether to suppress an exception?"


@click.command()
@click.option(
    "--corpus", type=click.Path(path_type=Path), default=None, help="A folder of .txt, .md, .rst and .py files."
)
@click.option("--question", default=QUESTION, show_default=True)
@click.option("--data", type=click.Path(path_type=Path), default=None, help="Keep the logs here (a new folder).")
@json_option
def demo(corpus: Path | None, question: str, data: Path | None, as_json: bool) -> None:
    """See the whole story in one run. A question, a chain of authority, attacks, logs that prove what happened."""
    from agentbus.cli.demo.corpus import load
    from agentbus.cli.demo.story import Story
    from agentbus.errors import ConfigError

    next(load(corpus))  # an empty or missing corpus is said before anything starts
    if data is not None and data.exists() and any(data.iterdir()):
        raise ConfigError("config.data", f"{data} is not empty; name a new folder")
    with tempfile.TemporaryDirectory(prefix="agentbus-demo-") as temporary:
        folder = data or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        tell = (lambda _: None) if as_json else click.echo
        story = Story(folder.resolve(), question, corpus.resolve() if corpus else None, tell)
        run_async(story.run())
        if as_json:
            click.echo(
                json.dumps(
                    {
                        "ok": story.ok,
                        "question": question,
                        "answer": story.answer,
                        "citations": story.citations,
                        "steps": [asdict(step) for step in story.steps],
                        "verdicts": story.verdicts,
                        "replay": story.replay,
                        "root": story.root,
                    }
                )
            )
        else:
            done = sum(step.ok for step in story.steps)
            click.echo(f"\n{done} of {len(story.steps)} steps did what they should{'' if story.ok else ': FAILED'}")
    if not story.ok:
        raise click.exceptions.Exit(1)
