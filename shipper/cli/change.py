"""Commands that let jobs count otherwise than in turn: `seek`, `backfill`."""

from collections.abc import Mapping
from typing import Any

import click

from shipper.cli import options
from shipper.cli.backfilling import BACKFILL
from shipper.cli.confirm import Told, act
from shipper.cli.times import duration, instant, shown


@click.command(short_help="Let a job leave rows out, or count the newest again.")
@options.configured
@options.output
@options.utc
@options.yes
@options.job
@click.option("--to", metavar="ID|TIME|end", help="Go on behind this id, with the slot of this time, or at the end.")
@click.option("--back", type=duration, metavar="DURATION", help="Count again what it counted in this time.")
def seek(file: str, output: str, job: str, to: str | None, back: int | None, *, is_sure: bool) -> None:
    """Let a job pass rows that it has not counted yet: they never will be; or count again what it has counted.

    With --to it goes forward only, and the slot in which it goes on is counted whole. With --back it stays where it is:
    nothing can double.
    """
    if (to is None) == (back is None):
        raise click.UsageError("say --to ID|TIME|end, or --back DURATION.")
    if to is None:
        act(file, "backfill", {"job": job, "back": back}, BACKFILL, output=output, is_sure=is_sure)
        return
    arguments: dict[str, Any] = {"job": job}
    if to.isdecimal():
        arguments["id"] = int(to)
    elif to != "end":
        arguments["time"] = instant(to)
    act(file, "seek", arguments, Told(_seek_plan, _moved), output=output, is_sure=is_sure)


@click.command(short_help="Count a span of time again, and send it.")
@options.configured
@options.output
@options.utc
@options.yes
@options.job
@click.option(
    "--from", "start", type=instant, required=True, metavar="TIME", help="Count whole slots from this one on."
)
@click.option("--until", "end", type=instant, required=True, metavar="TIME", help="Up to, not including, this time.")
@click.option("--rate", type=click.IntRange(min=1), help="At most so many datapoints a second, on average.")
def backfill(file: str, output: str, job: str, *, start: int, end: int, rate: int | None, is_sure: bool) -> None:
    """Count a span of time again from the source, whole slots of it, and send the totals.

    What Graphite has there is replaced. Captures go on meanwhile; ended early, the same command goes on with the rest.
    """
    if start >= end:
        raise click.UsageError(f"--from {shown(start)} is not before --until {shown(end)}.")
    arguments = {"job": job, "spans": [[start, end]], "rate": rate}
    act(file, "backfill", arguments, BACKFILL, output=output, is_sure=is_sure)


def _seek_plan(facts: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{facts['job']}: goes on behind id {facts['to']}; it stands at {facts['captured']}",
        f"  {facts['ids']} ids are passed: their rows are never counted",
    ]
    if facts["slot"] is not None:
        lines += [f"  slots from {shown(facts['slot'])} on are counted whole, rows that are passed included"]
        if facts["complete_until"] is not None and facts["complete_until"] < facts["slot"]:
            lines += [f"  bars from {shown(facts['complete_until'])} up to then stay as they are"]
    if facts["not_before"] is not None:
        lines += [f"  its next bucket begins at {shown(facts['not_before'])}, and has all rows from then on"]
    return lines


def _moved(result: Mapping[str, Any]) -> str:
    return f"{result['job']}: goes on behind id {result['captured']}"
