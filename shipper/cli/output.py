"""What commands print: results on stdout, talk on stderr."""

import json
from collections.abc import Sequence

import click

from shipper.core.errors import ShipperError


def complain(error: ShipperError) -> None:
    """Say in one line what failed, and in another what to do about it."""
    from shipper.log import is_journal

    # a line of the journal has a priority of its own: sd-daemon(3)
    begin = "<3>" if is_journal() else ""
    for line in f"error: {error}".splitlines():
        click.secho(f"{begin}{line}", fg="red", err=True)
    if error.hint:
        click.echo(f"{begin}  hint: {error.hint}", err=True)


def in_json(document: object) -> str:
    """Return a result for programs."""
    return json.dumps(document, indent=2)


def show_json(document: object) -> None:
    """Print a result for programs."""
    click.echo(in_json(document))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a result for people."""
    import tabulate

    tabulate.MIN_PADDING = 0  # else heads make columns wider by two
    return tabulate.tabulate(rows, headers, tablefmt="plain", disable_numparse=True)


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a result for people."""
    click.echo(table(headers, rows))
