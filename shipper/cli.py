"""Shell. Arguments, output, exit codes: 0 well, 1 failed, 2 usage, 3 not running, 78 configuration (EX_CONFIG).

Results go to stdout, talk to stderr. Commands import what they need when they run, so that `--help` is quick.
"""

import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from shipper.errors import ConfigError, NotRunning, ShipperError

if TYPE_CHECKING:
    from shipper.check import Finding

# A start makes a hundred thousand objects that stay; to look through them again and again takes a sixth of its time.
gc.set_threshold(50_000, 20, 20)

EX_CONFIG = 78
NOT_RUNNING = 3
RELOAD_SECONDS = 60.0  # systemd waits as long (TimeoutStartSec)


class _Group(click.Group):
    """Commands whose expected failures are one line and a hint, never a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ShipperError as error:
            _complain(error)
            codes: dict[type[ShipperError], int] = {ConfigError: EX_CONFIG, NotRunning: NOT_RUNNING}
            context.exit(next((code for kind, code in codes.items() if isinstance(error, kind)), 1))
        finally:
            gc.freeze()  # else all objects are looked through once more before the process ends


def _complain(error: ShipperError) -> None:
    from shipper.journal import is_journal

    # a line of the journal has a priority of its own: sd-daemon(3)
    begin = "<3>" if is_journal() else ""
    for line in f"error: {error}".splitlines():
        click.secho(f"{begin}{line}", fg="red", err=True)
    if error.hint:
        click.echo(f"{begin}  hint: {error.hint}", err=True)


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


def _logging(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--log-format",
        type=click.Choice(["logfmt", "json"]),
        default="logfmt",
        show_default=True,
        envvar="SHIPPER_LOG_FORMAT",
        help="How a line of the log is written.",
    )(command)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="shipper", prog_name="shipper", message="%(prog)s %(version)s")
def main() -> None:
    """Ship counts of an audit trail to Graphite on a schedule.

    The sum of a series in Graphite equals the count in the source: nothing lost, nothing doubled, nothing silent.
    """


@main.command()
@_configured
@_logging
def run(file: str, log_format: str) -> None:
    """Run in the foreground until SIGTERM or SIGINT."""
    from shipper import daemon, journal
    from shipper.config import load

    journal.start(as_json=log_format == "json")
    daemon.run(load(file))


@main.command()
@_configured
@_logging
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
def once(file: str, log_format: str, jobs: tuple[str, ...]) -> None:
    """Observe, settle, capture and deliver once, then exit; 1 if any of it failed."""
    from shipper import journal
    from shipper.config import load
    from shipper.once import once as run_once

    journal.start(as_json=log_format == "json")
    sys.exit(0 if run_once(load(file), jobs) else 1)


@main.command()
@_configured
@click.option("--offline", is_flag=True, help="Look at the file only; connect nowhere.")
def check(file: str, *, offline: bool) -> None:
    """Check the configuration, the sources and Carbon; print what carbon must be configured with."""
    from shipper.check import Finding, carbon_rules, findings
    from shipper.config import load

    config = load(file, with_credentials=not offline)
    _say(Finding(is_good=True, text=f"{file}: jobs: {len(config.jobs)}"))
    bad = 0
    for finding in () if offline else findings(config):
        _say(finding)
        bad += not finding.is_good
    click.echo(f"\n{carbon_rules(config)}", nl=False)
    sys.exit(1 if bad else 0)


@main.command()
@_configured
@click.option("--host", default="%", show_default=True, help="From where a MySQL account may connect.")
def grants(file: str, host: str) -> None:
    """Print what the sources' users must be granted, as SQL for an administrator to paste."""
    from shipper.config import load
    from shipper.source.grants import grants as grants_of

    config = load(file)
    for name in config.sources:
        access = config.access(name)
        queries = [job.query for job in config.jobs.values() if job.source == name]
        click.echo(f"-- source {name}: {access}")
        for statement in grants_of(access, queries, host=host):
            click.echo(statement)


@main.command()
@_configured
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table", help="How to show it.")
def status(file: str, output: str) -> None:
    """Show how each job does, and what fails; 3 when no daemon is running."""
    from shipper.config import load
    from shipper.status import document, rows, troubles

    told = document(load(file, with_credentials=False))
    if output == "json":
        click.echo(json.dumps(told, indent=2))
    else:
        table = rows(told)
        click.echo(_table([field.replace("_", " ").upper() for field in table[0]._fields], table))
        for line in troubles(told):
            click.echo(line, err=True)
        click.echo(f"running, process {told['pid']}" if told["is_running"] else "not running", err=True)
    sys.exit(0 if told["is_running"] else NOT_RUNNING)


@main.command()
@_configured
def reload(file: str) -> None:
    """Let the running service take over its configuration file as it is now: 0 when it has, else the reason."""
    from shipper.config import load
    from shipper.control import ask
    from shipper.state.lock import holder

    # for systemd's ExecReload there is no need to read the file here, where it may be broken
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    if runtime is not None:
        address: str | None = f"{runtime}/control.sock"
    else:
        held = holder(str(load(file, with_credentials=False).state.path))
        address = held.address if held else None
    if address is None:
        raise NotRunning(f"reload {file}: no shipper runs with its [state]", hint="Start it: systemctl start shipper.")
    answer = ask(address, "reload", timeout=RELOAD_SECONDS)
    click.echo(f"{answer['file']}: {answer['jobs']} jobs are on schedule")


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
