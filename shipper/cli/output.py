"""Output of commands: results on stdout, errors and remarks on stderr."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from shipper.core.errors import ShipperError


def complain(error: ShipperError) -> None:
    """Print an error on one line, and its hint on another."""
    from shipper.log.logger import drain, is_journal, visible

    drain()
    # systemd's journal reads the priority of a line from its beginning: sd-daemon(3)
    priority = "<3>" if is_journal() else ""
    for line in visible(f"error: {error}").splitlines():
        click.secho(f"{priority}{line}", fg="red", err=True)
    if error.hint:
        click.echo(visible(f"{priority}  hint: {error.hint}"), err=True)


def in_json(document: object) -> str:
    """Return a result as JSON."""
    return json.dumps(document, indent=2)


def show_json(document: object) -> None:
    """Print a result as JSON."""
    click.echo(in_json(document))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a result as a table."""
    import tabulate

    tabulate.MIN_PADDING = 0  # else headers make columns wider by two
    return tabulate.tabulate(rows, headers, tablefmt="plain", disable_numparse=True)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a result as a table."""
    click.echo(table(headers, rows))


def mark(*, is_good: bool) -> str:
    """Return the mark of a check: a green tick or a red cross."""
    return click.style("✓", fg="green") if is_good else click.style("✗", fg="red")


def format_place(value: int, *, is_along: bool) -> str:
    """Format an id; of a job along a time, the second of its column."""
    return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S}" if is_along else str(value)
