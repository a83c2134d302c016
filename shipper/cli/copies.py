"""Commands about copies of the state: `backup`, `restore`."""

import sys
from typing import TYPE_CHECKING

import click

from shipper.cli import options
from shipper.cli.confirm import confirm
from shipper.cli.options import format_time
from shipper.cli.output import format_place, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shipper.config.load import Config
    from shipper.core.model import JobStatus


@click.command(short_help="Copy the state, also while the service runs.")
@options.configured
@click.argument("copy", metavar="[FILE]", required=False)
def backup(file: str, copy: str | None) -> None:
    """Write a copy of the state to a new file, also while the service runs; without FILE to stdout."""
    from shipper.config.load import load
    from shipper.state.copies import back_up, new_file

    path = str(load(file, with_credentials=False).state.path)
    if copy is not None:
        with new_file(copy) as output:
            back_up(path, output)
        say(f"{copy}: a copy of {path}")
        return
    if sys.stdout.isatty():
        raise click.UsageError("stdout is a terminal: name a file, as in `shipper backup FILE`.")
    back_up(path, sys.stdout.buffer)


@click.command(short_help="Replace the state with a copy.")
@options.configured
@options.utc
@options.yes
@click.argument("copy", metavar="FILE")
def restore(file: str, copy: str, *, is_sure: bool) -> None:
    """Replace the state with a copy of it, while the service is stopped. The replaced state is kept beside it.

    The service then reads the rows since the copy again.
    """
    from shipper.config.load import load
    from shipper.state.copies import restore as restore_state

    config = load(file, with_credentials=False)

    def agree(statuses: "Mapping[str, JobStatus]") -> None:
        for line in _plan(config, copy, statuses):
            say(line)
        confirm(is_sure=is_sure)

    kept = restore_state(copy, str(config.state.path), agree=agree)
    say(f"{config.state.path}: restored; {f'the replaced state is {kept}' if kept else 'there was no state'}")


def _plan(config: "Config", copy: str, statuses: "Mapping[str, JobStatus]") -> list[str]:
    """Describe a copy, and the effect of its age on jobs with and without a time."""
    from shipper.state.queries import instant

    lines = [f"{copy}: takes the place of {config.state.path}"]
    for name, status in statuses.items():
        job, offsets = config.jobs.get(name), status.offsets
        is_along = job is not None and job.query.is_along
        until = f", complete until {format_time(instant(offsets.complete_until))}" if offsets.complete_until else ""
        lines.append(f"  {name}: counted up to {format_place(offsets.captured, is_along=is_along)}{until}")
    lines.append(
        "Later rows are read again, as after a downtime. Jobs with `time` stay correct: their totals replace those in "
        "Graphite."
    )
    timeless = [name for name in statuses if name in config.jobs and config.jobs[name].query.time is None]
    if timeless:
        names = ", ".join(timeless)
        lines.append(f"Jobs without `time` count these rows a second time, all in one bucket: {names}.")
        lines.append("  To skip the rows, run `shipper admin seek JOB --to end` before you start the service.")
        lines.append("  It skips all rows after the copy, also those that were never counted.")
    if new := [name for name in config.jobs if name not in statuses]:
        lines.append(f"Not in the copy, so they begin as new jobs: {', '.join(new)}.")
    return lines
