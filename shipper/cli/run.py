"""Commands that run shipper: `run`, `once`, `reload`, `demo`; and `backup`."""

import os
import sys

import click

from shipper.cli import options
from shipper.core.errors import NotRunning

RELOAD_SECONDS = 60.0  # TimeoutStartSec of the unit, which systemd also applies to a reload


@click.command(short_help="Run in the foreground, as the service does.")
@options.configured
@options.logging
def run(file: str, log_format: str) -> None:
    """Run in the foreground until SIGTERM or SIGINT."""
    from shipper import log
    from shipper.config.load import load
    from shipper.service import daemon

    log.start(as_json=log_format == "json")
    daemon.run(load(file))


@click.command(short_help="Run all jobs once, or some.")
@options.configured
@options.logging
@options.jobs
def once(file: str, log_format: str, jobs: tuple[str, ...]) -> None:
    """Observe, capture and deliver once, then exit: with 1 if any of it failed."""
    from shipper import log
    from shipper.config.load import load
    from shipper.service.once import once as run_once

    log.start(as_json=log_format == "json")
    sys.exit(0 if run_once(load(file), jobs) else 1)


@click.command(short_help="Let the service reload its configuration.")
@options.configured
def reload(file: str) -> None:
    """Let the running service reload its configuration. An invalid one changes nothing, and its errors are shown."""
    from shipper.config.load import load
    from shipper.service.control import ask
    from shipper.state.database import holder

    # systemd's ExecReload need not read the file here: the service reports the errors of a broken one
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    if runtime is not None:
        address: str | None = f"{runtime}/control.sock"
    else:
        service = holder(str(load(file, with_credentials=False).state.path))
        address = service.address if service else None
    if address is None:
        raise NotRunning(
            f"reload {file}: no running service uses the state file of this configuration",
            hint="Start it: systemctl start shipper.",
        )
    answer = ask(address, "reload", timeout=RELOAD_SECONDS)
    jobs = answer["jobs"]
    click.echo(f"{answer['file']}: {jobs} {'job' if jobs == 1 else 'jobs'} scheduled")


@click.command(short_help="Copy of the state, to stdout.")
@options.configured
def backup(file: str) -> None:
    """Write a copy of the state to stdout, also while the service runs: `shipper admin backup >FILE`."""
    from shipper.config.load import load
    from shipper.state.snapshot import back_up

    if sys.stdout.isatty():
        raise click.UsageError("stdout is a terminal: write the copy to a file, as in `shipper admin backup >FILE`.")
    back_up(str(load(file, with_credentials=False).state.path), sys.stdout.buffer)


@click.command(short_help="Run the demo, without any server.")
@click.option("--seconds", default=20, show_default=True, help="Time for which the audit trail grows.")
def demo(seconds: int) -> None:
    """Run a job with a real Carbon and an SQLite table: the daemon is killed once, and the sums are still equal."""
    from shipper.demo import show

    sys.exit(0 if show(seconds) else 1)
