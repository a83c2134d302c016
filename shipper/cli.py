"""Shell. Arguments, output, exit codes: 0 well, 1 failed, 2 usage, 3 not running, 78 configuration (EX_CONFIG).

Results go to stdout, talk to stderr. Commands import what they need when they run, so that `--help` is quick.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from shipper.errors import ConfigError, ShipperError

if TYPE_CHECKING:
    from shipper.check import Finding

EX_CONFIG = 78
NOT_RUNNING = 3


class _Group(click.Group):
    """Commands whose expected failures are one line and a hint, never a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ShipperError as error:
            click.secho(f"error: {error}", fg="red", err=True)
            if error.hint:
                click.echo(f"  hint: {error.hint}", err=True)
            context.exit(EX_CONFIG if isinstance(error, ConfigError) else 1)


def _configured(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--config",
        "file",
        default="/etc/shipper/shipper.toml",
        show_default=True,
        envvar="SHIPPER_CONFIG",
        metavar="FILE",
        help="The configuration.",
    )(command)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("shipper"), prog_name="shipper", message="%(prog)s %(version)s")
def main() -> None:
    """Ship counts of an audit trail to Graphite on a schedule.

    The sum of a series in Graphite equals the count in the source: nothing lost, nothing doubled, nothing silent.
    """


@main.command()
@_configured
def run(file: str) -> None:
    """Run in the foreground until SIGTERM or SIGINT."""
    from shipper import daemon, journal
    from shipper.config import load

    journal.start()
    daemon.run(load(file))


@main.command()
@_configured
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
def once(file: str, jobs: tuple[str, ...]) -> None:
    """Observe, settle, capture and deliver once, then exit; 1 if any of it failed."""
    from shipper import daemon, journal
    from shipper.config import load

    journal.start()
    sys.exit(0 if daemon.once(load(file), jobs) else 1)


@main.command()
@_configured
@click.option("--offline", is_flag=True, help="Look at the file only; connect nowhere.")
def check(file: str, *, offline: bool) -> None:
    """Check the configuration, the sources and Carbon; print what carbon must be configured with."""
    from shipper.check import Finding, carbon_rules, findings
    from shipper.config import load

    config = load(file)
    _say(Finding(is_good=True, text=f"{file}: jobs: {len(config.jobs)}"))
    bad = 0
    for finding in () if offline else findings(config):
        _say(finding)
        bad += not finding.is_good
    click.echo(f"\n{carbon_rules(config)}", nl=False)
    sys.exit(1 if bad else 0)


@main.command()
@_configured
def status(file: str) -> None:
    """Show how far each job has come; 3 when no daemon is running."""
    from shipper.config import load
    from shipper.state.lock import holder
    from shipper.status import statuses

    config = load(file)
    process = holder(config.state.path)
    rows = statuses(config)
    headers = [field.replace("_", " ").upper() for field in rows[0]._fields]
    click.echo(_table(headers, rows))
    click.echo(f"running, process {process}" if process else "not running", err=True)
    sys.exit(0 if process else NOT_RUNNING)


@main.command()
@click.option("--seconds", default=20, show_default=True, help="How long the audit trail grows.")
def demo(seconds: int) -> None:
    """Watch the main job with a real Carbon and no server: the daemon is killed once, and the sums are equal."""
    from shipper.demo import show

    sys.exit(0 if show(seconds) else 1)


def _say(finding: "Finding") -> None:
    mark = click.style("✓", fg="green") if finding.is_good else click.style("✗", fg="red")
    click.echo(f"{mark} {finding.text}")
    if finding.remedy:
        click.echo(f"    {finding.remedy}")


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from tabulate import tabulate

    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True)


if __name__ == "__main__":
    main(prog_name="shipper")
