"""The command that makes dashboards: `dashboard`."""

from pathlib import Path
from typing import Any

import click

from shipper.cli import options
from shipper.cli.output import show_json
from shipper.core.errors import ConfigError


@click.command(short_help="Dashboards for Graphite or Grafana.")
@options.configured
@options.yes
@click.option("-d", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Write them there, a file each.")
@click.option("--push", "url", metavar="URL", help="Store them in graphite-web there.")
@click.argument("kind", type=click.Choice(["graphite", "grafana"]))
@options.jobs
def dashboard(
    file: str, folder: Path | None, url: str | None, kind: str, jobs: tuple[str, ...], *, is_sure: bool
) -> None:
    """Make dashboards of all jobs and of the service itself, or one of some jobs; print them, unless told otherwise.

    Grafana reads them from files: -d writes them, and what Grafana needs to find them.
    """
    from shipper.cli.dashboards import dashboards
    from shipper.config.load import load
    from shipper.graphite.dashboards import grafana
    from shipper.graphite.dashboards import graphite_web as graphite

    if url is not None and (kind == "grafana" or not url.startswith(("http://", "https://"))):
        raise click.UsageError(
            "--push is for graphite, and an address as http://graphite.internal; Grafana reads files: -d"
        )
    config = load(file, with_credentials=False)
    made = dashboards(config, [job for name in jobs for job in config.named(name)])
    written = {one.name: grafana.document(one) if kind == "grafana" else graphite.state(one) for one in made}
    if folder is not None:
        _write(folder, written, grafana.provisioning(str(folder.absolute())) if kind == "grafana" else None)
    if url is not None:
        _push(url, written, is_sure=is_sure)
    if folder is None and url is None:
        show_json(written)


def _write(folder: Path, written: dict[str, Any], provisioning: str | None) -> None:
    import json

    files = {folder / f"{name}.json": f"{json.dumps(document, indent=1)}\n" for name, document in written.items()}
    if provisioning is not None:
        files[folder / "shipper.yaml"] = provisioning
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            file.write_text(text)
            click.echo(file)
    except OSError as error:
        raise ConfigError(f"write to {folder}: {error.strerror}", hint="Name another directory with -d.") from error
    if provisioning is not None:
        click.echo("Grafana finds them once shipper.yaml is in its provisioning/dashboards too.", err=True)


def _push(url: str, written: dict[str, Any], *, is_sure: bool) -> None:
    """Store dashboards where there are none, or ours; ask before one that somebody has changed is lost."""
    from shipper.graphite.dashboards.graphite_web import MARK, GraphiteWeb, digest

    web = GraphiteWeb(url)
    for name, state in written.items():
        there = web.load(name)
        is_ours = there is None or there.get(MARK) == digest(there)
        question = f"{web.page(name)} was changed by somebody, or is not of shipper. Overwrite it?"
        if is_ours or is_sure or click.confirm(question, err=True):
            web.save(name, state)
            click.echo(f"{'new' if there is None else 'same' if there == state else 'replaced'}: {web.page(name)}")
        else:
            click.echo(f"left as it is: {web.page(name)}")
