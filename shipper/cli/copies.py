"""Commands about the whole state: `backup`, `restore`, `state move`."""

import socket
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


@options.command("Copy the state, also while the service runs.")
@click.argument("copy", metavar="[FILE]", required=False)
def backup(file: str, copy: str | None) -> None:
    """Write a copy of the state to a new file, also while the service runs; without FILE to stdout."""
    from shipper.config.load import load_for_state
    from shipper.runtime.endpoints import readable_state
    from shipper.state.copies import back_up, new_file

    if copy is None and sys.stdout.isatty():
        raise click.UsageError("stdout is a terminal: name a file, as in `shipper backup FILE`.")
    config = load_for_state(file)
    if copy is None:
        with readable_state(config) as path:
            back_up(path, sys.stdout.buffer)
        return
    with new_file(copy) as output, readable_state(config) as path:  # first: root becomes another user by the second
        back_up(path, output)
    say(f"{copy}: a copy of {place_of(config)}")


@options.command("Replace the state with a copy.")
@options.utc
@options.yes
@click.argument("copy", metavar="FILE")
def restore(file: str, copy: str, *, is_sure: bool) -> None:
    """Replace the state with a copy of it, while the service is stopped. The replaced state is kept beside the new one.

    The service then reads rows newer than the copy again.
    """
    from shipper.config.load import load_for_state
    from shipper.state import copies

    config = load_for_state(file)

    def agree(statuses: "Mapping[str, JobStatus]") -> None:
        for line in _plan(config, copy, statuses):
            say(line)
        confirm(is_sure=is_sure)

    path = str(config.state.path)
    if config.state.database is None:
        kept = copies.restore(copy, path, agree=agree)
    else:
        from shipper.runtime.leadership import lead

        kept = copies.restore_into(copy, path, lambda: lead(config), agree=agree)
    say(f"{place_of(config)}: restored; {f'the replaced state is {kept}' if kept else 'there was no state'}")


def _plan(config: "Config", copy: str, statuses: "Mapping[str, JobStatus]") -> list[str]:
    """Describe a copy, and the effect of its age on jobs with and without a time."""
    from shipper.state.queries import instant

    lines = [f"{copy}: takes the place of {place_of(config)}"]
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


def place_of(config: "Config") -> str:
    """Return where the state is, for people."""
    access = config.state_access()
    return str(config.state.path) if access is None else f"{access} (state {config.state.name})"


@click.group(short_help="Move the state between a file and a database.")
def state() -> None:
    """Move the state between a file and a database."""


@state.command(short_help="Move the state into the database, or back into a file.")
@options.configured
@options.yes
@click.option(
    "--to",
    type=click.Choice(["database", "path"]),
    required=True,
    help="Where to move it: into [state] database, or into the file of [state] path.",
)
def move(file: str, to: str, *, is_sure: bool) -> None:
    """Move the state between its file (`path`) and its database (`database`), while no service runs.

    The old place is marked, so that no service starts with it. If the command is interrupted, repeat it.
    """
    from shipper.config.load import load
    from shipper.core.errors import ConfigError
    from shipper.runtime.leadership import lead
    from shipper.state.move import into_database, into_file

    config = load(file)
    if config.state.database is None:
        raise ConfigError(
            f"move state: {file} names no database",
            hint='Name a PostgreSQL in [state]: database = "postgresql+psycopg://db1.internal/shipper".',
        )
    path, database = str(config.state.path), place_of(config)
    source, target = (path, database) if to == "database" else (database, path)
    say(f"{source}: moves to {target}")
    confirm(is_sure=is_sure)
    place = f"{socket.gethostname()}:{path}"
    if to == "database":
        kept = into_database(path, lambda: lead(config), place=place)
        say(f"{database}: has the state now; the former file is {kept}, and no service starts with it")
    else:
        into_file(path, lambda: lead(config), place=place)
        say(f"{path}: has the state now; remove [state] database before you start the service on this machine")
