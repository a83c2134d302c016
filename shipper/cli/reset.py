"""Command `reset`: an operator says what has happened to a job's table."""

from collections.abc import Mapping
from typing import Any

import click

from shipper.cli import options
from shipper.cli.confirm import Told, act, look
from shipper.cli.times import shown

_WHATS = {
    "emptied": "its rows are gone, and its ids began anew",
    "restored": "it was taken back to an earlier state, or another server took over",
    "replaced": "another table has its name now",
}


@click.command(short_help="Say what has happened to the table of a job that is held.")
@options.configured
@options.output
@options.utc
@options.yes
@options.job
@click.option("--emptied", is_flag=True, help="Its rows are gone: count all that it holds now.")
@click.option("--restored", is_flag=True, help="What it holds is counted: go on with what comes from now on.")
@click.option("--replaced", is_flag=True, help="It is another table: count all that it holds.")
def reset(file: str, output: str, job: str, *, is_sure: bool, **flags: bool) -> None:
    """Let a job go on whose table was emptied, restored or replaced. What Graphite has stays as it is.

    Without --emptied, --restored or --replaced it shows what each of them means, and changes nothing.
    """
    said = [what for what in _WHATS if flags[what]]
    which = "say one of --emptied, --restored, --replaced"
    if len(said) > 1:
        raise click.UsageError(f"{which}: not two.")
    told = Told(_plan, _done)
    if not said:
        look(file, "reset", {"job": job}, told, output=output)
        raise click.UsageError(f"{which}; nothing was changed.")
    act(file, "reset", {"job": job, "what": said[0]}, told, output=output, is_sure=is_sure)


def _plan(facts: Mapping[str, Any]) -> list[str]:
    job = facts["job"]
    if facts["is_held"]:
        lines = [f"{job}: is held, because its table {facts['table']} went back: {facts['reason']}"]
    else:
        lines = [f"{job}: is not held; nothing says that its table {facts['table']} went back"]
    lines += [f"  the table holds {_held(facts)}"]
    complete = f", complete until {shown(facts['complete_until'])}" if facts["complete_until"] is not None else ""
    lines += [f"  the job has counted ids up to {facts['captured']}{complete}"]
    if facts["known"]:
        lines += [f"  of the newest {facts['known']} rows up to there the table holds {facts['known_again']}"]
    if facts["known_again"] and facts["is_held"]:
        lines += ["  rows that are counted are there: --emptied and --replaced would count them twice"]
    for choice in facts["choices"]:
        lines += [f"--{choice['what']}: {_WHATS[choice['what']]}"]
        lines += [f"  {line}" for line in _meaning(choice, facts)]
    return [
        *lines,
        "What Graphite has stays as it is.",
        f"`shipper backfill {job}` makes it show the table as it is now, for a span of time.",
    ]


def _held(facts: Mapping[str, Any]) -> str:
    if not facts["largest"]:
        return "no rows"
    ids = f"ids {facts['first']} to {facts['largest']}"
    if facts["first_time"] is None and facts["largest_time"] is None:
        return ids
    return f"{ids}; the first row is of {shown(facts['first_time'])}, the newest of {shown(facts['largest_time'])}"


def _meaning(choice: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Say what follows from an answer."""
    captured, first, largest = facts["captured"], facts["first"], facts["largest"]
    if choice["is_refused"]:
        return [f"refused: rows up to id {captured} are counted, and would be counted twice"]
    if choice["what"] == "restored":
        lines = [f"ids up to {largest} count as counted: only rows that come from now on are counted"]
        passed = f"ids {captured + 1} to {largest} are passed: their rows are never counted"
        return [*lines, passed] if choice["passed"] else lines
    lines = ["all rows that come are counted"]
    if choice["ids"]:
        lines = [
            f"all that the table holds is counted and added: ids {first} to {largest}, {choice['ids']} rows at most"
        ]
    if choice["unaccounted"]:
        between = f"ids {captured + 1} to {first - 1} are in neither"
        lines += [f"{between}: up to {choice['unaccounted']} rows of the other table may not be counted"]
    return lines


def _done(result: Mapping[str, Any]) -> str:
    return f"{result['job']}: goes on behind id {result['captured']} with its next tick"
