"""Commands that tell how jobs do and did: `status`, `history`."""

import sys
import time
from collections.abc import Callable, Mapping

import click

from shipper.cli import options
from shipper.cli.output import in_json, show_json, show_table
from shipper.cli.times import instant, lasting, shown

NOT_RUNNING = 3
WATCH_SECONDS = 2.0


@click.command(short_help="How each job does, and what fails.")
@options.configured
@options.output
@options.utc
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@options.jobs
def status(file: str, output: str, jobs: tuple[str, ...], *, watch: bool) -> None:
    """Show what runs, how far each job is, and what fails: 0 when all is well, 1 when not, 3 when it does not run."""
    from shipper.cli.status_text import status_text
    from shipper.config.load import load
    from shipper.diagnostics.status import complaints, document

    config = load(file, with_credentials=False)

    def look() -> tuple[str, int]:
        told = document(config, jobs)
        code = NOT_RUNNING if not told["is_running"] else 1 if complaints(told) else 0
        return in_json(told) if output == "json" else status_text(told), code

    text, code = look()
    click.echo(text)
    sys.exit(_watched(look, code) if watch else code)


@click.command(short_help="The last commits of a job's watermark.")
@options.configured
@options.output
@options.utc
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many to show.")
@click.option("--at", type=instant, metavar="TIME", help="Those around a time, and what the state holds for it.")
@options.job
def history(file: str, output: str, job: str, limit: int, at: int | None) -> None:
    """Show the last commits of a job's watermark, the newest last: when, and how far it moved.

    With --at those before and after a time, and the slots around it: what happened at 06:15?
    """
    from shipper.config.load import load
    from shipper.diagnostics.status import story

    told = story(load(file, with_credentials=False), job, limit=limit, at=at)
    if output == "json":
        show_json(told)
        return
    commits, slots = told["commits"], told["slots"]
    if commits:
        show_table(("COMMITTED", "WATERMARK", "IDS", "DATAPOINTS"), [_commit(one) for one in commits])
    else:
        click.echo(f"{job}: no watermark was committed after a delivery yet", err=True)
    if commits and slots:
        click.echo()
    if slots:
        show_table(("SLOT", "LENGTH", "SERIES", "ROWS", "UNPROVEN", "CHANGED"), [_slot(one) for one in slots])
    elif at is not None:
        click.echo(
            f"{job}: the state holds nothing for {shown(at)}: never counted, or delivered and forgotten", err=True
        )


def _commit(commit: Mapping[str, int | None]) -> tuple[str, ...]:
    return shown(commit["committed"]), *(_number(commit[name]) for name in ("watermark", "ids", "datapoints"))


def _slot(slot: Mapping[str, int | None]) -> tuple[str, ...]:
    numbers = (_number(slot[name]) for name in ("series", "rows", "unproven"))
    return shown(slot["slot"]), lasting(slot["step"] or 0), *numbers, shown(slot["changed"])


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _watched(look: Callable[[], tuple[str, int]], code: int) -> int:
    """Look again and again; return the last exit code. In a terminal each look takes the place of the one before."""
    from shipper.core.errors import ShipperError

    try:
        while True:
            time.sleep(WATCH_SECONDS)
            try:
                text, code = look()
            except ShipperError as error:  # as a service that is just being restarted
                text, code = f"{error}", 1
            click.clear()
            click.echo(text if sys.stdout.isatty() else f"\n{text}")
    except KeyboardInterrupt:
        return code
