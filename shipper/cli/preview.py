"""A command that tries a job: `preview`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from shipper.cli import options
from shipper.cli.output import show_json, table
from shipper.cli.times import shown

if TYPE_CHECKING:
    from shipper.diagnostics.preview import Preview


@click.command(short_help="What a job would send now.")
@options.configured
@options.output
@options.utc
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Lines to show; 0 is all of them.")
@options.job
def preview(file: str, output: str, limit: int, job: str) -> None:
    """Show what a job would do now, with one chunk of what is new: its statement and plan, the lines, the watermark.

    Nothing is sent, and nothing is stored; a service that runs does not notice.
    """
    from shipper.config.load import load
    from shipper.diagnostics.preview import preview as preview_of

    config = load(file)
    previews = [preview_of(config, one) for one in config.named(job)]
    if output == "json":
        show_json([one.document(limit or None) for one in previews])
    for one in previews if output == "table" else ():
        _show(one, limit or None)
    click.echo("Nothing was sent, and nothing was stored.", err=True)


def _show(found: "Preview", limit: int | None) -> None:
    """Show it in the order in which it came about."""
    told = [("job", f"{found.job} on {found.source}"), ("window", _window(found))]
    told += [("noticed", _noticed(event, details)) for event, details in found.noticed]
    told += [("sql", found.sql), ("plan", str(found.plan))]
    told += [("unshown", f"{cause}: rows: {rows}") for cause, rows in found.unshown.items()]
    told += [("name", f"{_raw(one.values)} is {one.path}") for one in found.cleaned]
    if found.parked:
        told.append(("parked", f"{found.parked} datapoints wait until their archive may receive them"))
    told += [("lines", str(len(found.datapoints)))]
    for title, text in told:
        click.echo(f"{title:<10}{text.replace(chr(10), chr(10) + ' ' * 10)}")
    lines = [(one.line, shown(one.slot)) for one in found.datapoints[:limit]]
    click.echo("".join(f"  {line}\n" for line in table((), lines).splitlines()), nl=False)
    if rest := len(found.datapoints) - len(lines):
        click.echo(f"  and {rest} more: --limit 0 shows all")
    click.echo(f"{'watermark':<10}{found.watermark}")


def _window(found: "Preview") -> str:
    if found.window is None:
        return f"no id above {found.watermark} yet"
    left = found.horizon - found.window.upto
    return f"ids {found.window}, rows: {found.rows}" + (
        f"; {left} more ids up to {found.horizon} are left" if left else ""
    )


def _noticed(event: str, details: Mapping[str, object]) -> str:
    return " ".join([event, *(f"{key}={value}" for key, value in details.items())])


def _raw(values: tuple[str | None, ...]) -> str:
    return ", ".join("NULL" if value is None else repr(value) for value in values)
