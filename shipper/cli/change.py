"""Commands that change jobs: `seek`, `backfill`, `rename`, `forget`, `import`, `reset`."""

import re
import sys
from collections.abc import Mapping
from typing import Any

import click

from shipper.cli import options
from shipper.cli.confirm import BACKFILL, Messages, act, perform, show_plan
from shipper.cli.options import format_time, instant
from shipper.cli.output import format_place, say, show_json
from shipper.cli.verify import prove


@options.command("Skip rows that a job has not counted yet.", epilog=options.TIME_HELP, has_output=True)
@options.utc
@options.yes
@options.job
@click.option(
    "--to",
    required=True,
    metavar="ID|TIME|end",
    help="Where to continue: after this id, at the slot of this time, or after the newest row (end).",
)
def seek(file: str, output: str, job: str, to: str, *, is_sure: bool) -> None:
    """Skip rows that a job has not counted yet: it never counts them.

    The slot in which the job continues is counted completely. A job moves forward only; to recount, use
    `shipper backfill`.
    """
    arguments: dict[str, Any] = {"job": job}
    if re.fullmatch("[0-9]{1,20}", to):
        arguments["id"] = int(to)
    elif to != "end":
        try:
            arguments["time"] = instant(to)
        except click.BadParameter as error:
            raise click.BadParameter(f"{error.message} Or write an id, or end.", param_hint="'--to'") from error
    messages = Messages(_seek_plan, lambda done: f"{done['job']}: continues after {_place(done, 'captured')}")
    act(file, "seek", arguments, messages, output=output, is_sure=is_sure)


@options.command("Recount a span of time, and send it.", epilog=options.TIME_HELP, has_output=True)
@options.utc
@options.yes
@options.job
@options.moment("--from", "start", text="Start; its slot is included.", required=True)
@options.moment("--until", "end", text="End; not included.", default="now", show_default=True)
@click.option("--rate", type=click.IntRange(min=1), metavar="N", help="Maximum datapoints per second.")
def backfill(file: str, output: str, job: str, *, start: int, end: int, rate: int | None, is_sure: bool) -> None:
    """Recount complete slots of a span of time from the source, and send their totals.

    They replace the values in Graphite. Captures continue meanwhile. If it is interrupted, run the same command again
    within an hour to continue. At the end it compares the slots with Graphite, and exits with 1 if they differ.
    """
    if start >= end:
        raise click.UsageError(f"--from {format_time(start)} is not before --until {format_time(end)}.")
    arguments = {"job": job, "spans": [[start, end]], "rate": rate}
    messages = BACKFILL._replace(plan=_backfill_plan)
    performed = perform(file, "backfill", arguments, messages, is_json=output == "json", is_sure=is_sure)
    spans, is_delivered = performed["plan"]["spans"], performed["done"]["is_delivered"]
    proof = prove(file, job, (spans[0][0], spans[-1][1])) if is_delivered else None
    if output == "json":
        show_json({**performed, "proof": proof})
    sys.exit(1 if proof is not None and proof["different"] else 0)


def _backfill_plan(facts: Mapping[str, Any]) -> list[str]:
    """Return the plan, and how to see its effect: to count the rows before would take as long as the backfill."""
    from shipper.log.logger import format_utc

    span = f"--from {format_utc(facts['spans'][0][0])} --until {format_utc(facts['spans'][-1][1])}"
    command = f"`shipper reconcile {facts['job']} {span}`"
    effect = f"to see which values it lowers, first run {command} (needs `render_url`)"
    if facts["spans"][0][0] < facts["since"]:
        reason = "reconcile cannot compare slots before the job's first complete one"
        effect = f"which values it lowers is unknown: {reason}"
    return [*BACKFILL.plan(facts), f"  {effect}"]


def _seek_plan(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{facts['job']}: continues after {_place(facts, 'to')}; now at {_place(facts, 'captured')}"]
    skipped = f"  skips {facts['ids']} {'seconds' if facts['is_along'] else 'ids'}"
    if facts["slot"] is None:
        lines += [skipped]
    else:
        since = f"from {format_time(facts['slot'])} on are counted"
        some = f"{skipped}; of their rows, only those {since}"
        lines += [some if facts["ids"] else f"  skips no ids; rows {since}"]
        if facts["complete_until"] is not None and facts["complete_until"] < facts["slot"]:
            start, end = format_time(facts["complete_until"]), format_time(facts["slot"])
            lines += [f"  skipped rows from {start} until {end} are never counted: Graphite stays as it is"]
    if facts["not_before"] is not None:
        lines += [f"  new rows go into buckets from {format_time(facts['not_before'])} on"]
    return lines


def _place(facts: Mapping[str, Any], name: str) -> str:
    return ("" if facts["is_along"] else "id ") + format_place(facts[name], is_along=facts["is_along"])


@options.command("Transfer a removed job's state to another job.", has_output=True)
@options.yes
@click.argument("before", metavar="OLD")
@click.argument("job", metavar="NEW")
def rename(file: str, output: str, before: str, job: str, *, is_sure: bool) -> None:
    """Transfer the state of a job that is not configured any more to another job, which continues with it."""
    messages = Messages(_rename_plan, "{before}: is now {job}".format_map)
    act(file, "rename", {"before": before, "job": job}, messages, output=output, is_sure=is_sure)


@options.command("Delete a removed job's state.", has_output=True)
@options.yes
@click.argument("job")
def forget(file: str, output: str, job: str, *, is_sure: bool) -> None:
    """Delete the state of a job that is not configured any more; Graphite keeps its datapoints."""
    messages = Messages(
        lambda facts: [f"{facts['job']}: this deletes its state:", _state(facts)], "{job}: forgotten".format_map
    )
    act(file, "forget", {"job": job}, messages, output=output, is_sure=is_sure)


@options.command("Continue where an older script ended.", name="import", has_output=True)
@options.yes
@click.argument("persisted", metavar="FILE")
@click.option(
    "--job", "names", multiple=True, metavar="SCRIPT=JOB", help="Job that continues for a script; may be repeated."
)
def import_(file: str, output: str, persisted: str, names: tuple[str, ...], *, is_sure: bool) -> None:
    """Let new jobs start after the ids that an older script has counted.

    FILE is the script's SQLite file, with the table persist (scriptname, index_table, index_column, index_value).
    """
    from shipper.operations.import_legacy import read

    pairs = [name.partition("=") for name in names]
    if wrong := next((pair for pair in pairs if not (pair[0] and pair[2])), None):
        raise click.UsageError(f"--job {''.join(wrong)}: write SCRIPT=JOB.")
    arguments = {"rows": read(persisted), "names": {script: job for script, _, job in pairs}}
    messages = Messages(
        lambda facts: list(map(_row, facts["rows"])),
        lambda done: "\n".join(f"{name}: starts after id {value}" for name, value in done["jobs"].items()),
    )
    act(file, "import", arguments, messages, output=output, is_sure=is_sure)


def _rename_plan(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{facts['before']}: becomes {facts['job']}", _state(facts)]
    if not facts["is_configured"]:
        lines += [f"  {facts['job']} is not in the configuration, and does not run until it is"]
    if facts["dropped"] is not None:
        lines += [f"  this deletes the present state of {facts['job']}:", _state(facts["dropped"])]
    return lines


def _row(row: Mapping[str, Any]) -> str:
    value = "an invalid id" if row["value"] is None else row["value"]
    script = f"{row['script']} counted {row['table']}.{row['column']} up to {value}"
    if row["job"] is None:
        return f"{script}: not imported, because no job fits; --job {row['script']}=JOB names one"
    if not row["is_new"]:
        return f"{script}: job {row['job']} has started already, and stays unchanged"
    start = "starts after that id; only in the job's first slot does it also count the rows up to that id"
    return f"{script}: job {row['job']} {start}"


def _state(facts: Mapping[str, Any]) -> str:
    unproven = f", {facts['unproven']} datapoints not proven to be in Graphite" if facts["unproven"] else ""
    where = f"{facts['source']} {facts['table']}"
    return f"  {where}: watermark {facts['watermark']}, captured {facts['captured']}{unproven}"


_CAUSES = {
    "emptied": "its rows were deleted, and its ids restarted",
    "restored": "it was restored to an earlier state, or another server took over",
    "replaced": "a different table has its name now",
}


@options.command("Let a held job continue, after a change of its table.", has_output=True)
@options.utc
@options.yes
@options.job
@click.option("--emptied", is_flag=True, help="The rows of the table were deleted: count all rows that it has now.")
@click.option(
    "--restored", is_flag=True, help="The table was restored, or another server took over: count only new rows."
)
@click.option("--replaced", is_flag=True, help="A different table has the name now: count all its rows.")
def reset(file: str, output: str, job: str, *, is_sure: bool, **flags: bool) -> None:
    """Let a job continue after its table was emptied, restored or replaced. Graphite keeps its datapoints.

    Without --emptied, --restored or --replaced the command shows the effect of each, and changes nothing.
    """
    causes = [cause for cause in _CAUSES if flags[cause]]
    if len(causes) > 1:
        raise click.UsageError("pass one of --emptied, --restored, --replaced: not two.")
    messages = Messages(_reset_plan, "{job}: continues after id {captured} at its next tick".format_map)
    if not causes:
        plan = show_plan(file, "reset", {"job": job}, messages, is_json=output == "json")
        if output == "json":
            show_json({"plan": plan["facts"], "done": None})
        answers = ", ".join(f"--{cause}" for cause in _CAUSES)
        say(f"nothing was changed: repeat the command with one of {answers}", err=True)
        sys.exit(2)
    act(file, "reset", {"job": job, "what": causes[0]}, messages, output=output, is_sure=is_sure)


def _reset_plan(facts: Mapping[str, Any]) -> list[str]:
    # the job and its table
    job, table = facts["job"], facts["table"]
    if facts["is_held"]:
        lines = [f"{job}: held, because its table {table} was reset: {facts['reason']}"]
    else:
        lines = [f"{job}: not held; nothing shows that its table {table} was reset"]
    lines += [f"  the table has {_rows(facts)}"]
    first, until = facts["first_time"], facts["complete_until"]
    complete = f", complete until {format_time(until)}" if until is not None else ""
    lines += [f"  the job has counted ids up to {facts['captured']}{complete}"]
    # the rows that identify the table
    if facts["known"]:
        lines += [f"  the table has {facts['known_again']} of the {facts['known']} newest rows that the job counted"]
    if facts["known_again"] and facts["is_held"]:
        lines += ["  the table has rows that are counted already: --emptied and --replaced would count them twice"]
    elif facts["is_held"] and first is not None and until is not None and first < until:
        risk = "if the table was restored, --emptied and --replaced count its rows twice"
        lines += [f'  its first row is older than "complete until": {risk}']
    # the choices
    for choice in facts["choices"]:
        lines += [f"--{choice['what']}: {_CAUSES[choice['what']]}"]
        lines += [f"  {line}" for line in _effect(choice, facts)]
    return [
        *lines,
        "Graphite keeps its datapoints.",
        f"To recount a span of time from the table as it is now: `shipper backfill {job} --from TIME --until TIME`.",
        "Such a recount lowers values whose rows are gone.",
    ]


def _rows(facts: Mapping[str, Any]) -> str:
    if not facts["largest"]:
        return "no rows"
    ids = f"ids {facts['first']} to {facts['largest']}"
    if facts["first_time"] is None and facts["largest_time"] is None:
        return ids
    first, newest = (format_time(facts[name]) for name in ("first_time", "largest_time"))
    return f"{ids}; the first row is from {first}, the newest from {newest}"


def _effect(choice: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Return the effect of a choice, a line each."""
    captured, first, largest = facts["captured"], facts["first"], facts["largest"]
    if choice["is_rejected"]:
        return [f"not possible: rows up to id {captured} are counted, and would be counted twice"]
    if choice["what"] == "restored":
        lines = [f"ids up to {largest} count as already counted; only new rows are added"]
        has_times = facts["first_time"] is not None or facts["largest_time"] is not None
        command = f"`shipper backfill {facts['job']} --from TIME`"
        end = f"not counted, unless you then run {command}" if has_times else "never counted"
        skipped = f"ids {captured + 1} to {largest} are skipped: their rows are {end}"
        return [*lines, skipped] if choice["skipped"] else lines
    lines = ["all new rows are counted"]
    if choice["ids"]:
        lines = [f"all present rows are added: ids {first} to {largest}, at most {choice['ids']} rows"]
    if choice["unaccounted"]:
        lost = f"up to {choice['unaccounted']} rows of the former table (ids {captured + 1} to {first - 1})"
        lines += [f"{lost} may be lost: they are never counted"]
    if choice["what"] == "emptied":
        lines += ["rows that were written after the job's last tick and then deleted are not counted"]
    return lines
