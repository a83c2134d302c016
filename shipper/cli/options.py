"""Options that several commands have in common."""

from collections.abc import Callable

import click

from shipper.cli.times import keep_utc


def _jobs(context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the configured jobs that a word may become: quickly, and whatever is wrong with the files."""
    import tomllib
    from contextlib import suppress
    from pathlib import Path

    names: list[str] = []
    file = Path(context.params["file"])
    for path in (file, *file.parent.glob("conf.d/*.toml")):
        with suppress(OSError, ValueError, AttributeError):
            for name, job in tomllib.loads(path.read_text(encoding="utf-8")).get("job", {}).items():
                several = job.get("source")
                names += [name, *(f"{name}@{one}" for one in several)] if isinstance(several, list) else [name]
    return sorted(name for name in names if name.startswith(incomplete))


Decorator = Callable[[Callable[..., None]], Callable[..., None]]

configured: Decorator = click.option(
    "--config",
    "file",
    default="/etc/shipper/shipper.toml",
    show_default=True,
    envvar="SHIPPER_CONFIG",
    type=click.Path(),
    metavar="FILE",
    help="The configuration.",
)
logging: Decorator = click.option(
    "--log-format",
    type=click.Choice(["logfmt", "json"]),
    default="logfmt",
    show_default=True,
    envvar="SHIPPER_LOG_FORMAT",
    help="How a line of the log is written.",
)
output: Decorator = click.option(
    "-o", "output", type=click.Choice(["table", "json"]), default="table", help="How to show it."
)
utc: Decorator = click.option(
    "--utc",
    is_flag=True,
    is_eager=True,  # before the times that it decides about
    expose_value=False,
    callback=keep_utc,
    help="Read and show times as UTC, not as local ones.",
)
yes: Decorator = click.option("--yes", "-y", "is_sure", is_flag=True, help="Do it without asking.")
job: Decorator = click.argument("job", shell_complete=_jobs)
jobs: Decorator = click.argument("jobs", nargs=-1, metavar="[JOB]...", shell_complete=_jobs)
