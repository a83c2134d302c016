"""Commands for who sets it up: `check`, `grants`, `carbon-conf`.

Dashboards derived from the jobs, for Graphite and for Grafana, and one for the service itself.

The command that makes dashboards: `dashboard`.
"""

import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shipper.cli import options
from shipper.cli.output import show_json, show_table
from shipper.config.load import Config
from shipper.core.errors import ConfigError
from shipper.core.model import Job
from shipper.graphite.dashboards.panels import Dashboard, own_panels, panels_of

if TYPE_CHECKING:
    from shipper.diagnostics.carbon_conf import Diff
    from shipper.diagnostics.check import Finding


@click.command(short_help="Check configuration, sources and Carbon.")
@options.configured
@options.output
@click.option("--offline", is_flag=True, help="Look at the file only; connect nowhere.")
def check(file: str, output: str, *, offline: bool) -> None:
    """Check the configuration, the state, the sources with the queries of their jobs, and Carbon.

    All is looked at in one run, and each ✗ is followed by its remedy. 1 where there is one.
    """
    from shipper.config.load import load
    from shipper.diagnostics.check import Finding, findings

    config = load(file, with_credentials=not offline)
    found = []
    for finding in chain([Finding(True, file, f"jobs: {len(config.jobs)}")], () if offline else findings(config)):
        found.append(finding)
        if output == "table":
            _say(finding)
    bad = sum(not finding.is_good for finding in found)
    if output == "json":
        show_json({"is_good": not bad, "findings": [finding._asdict() for finding in found]})
    click.echo(f"✗: {bad}" if bad else "What carbon must be configured with: shipper admin carbon-conf", err=True)
    sys.exit(1 if bad else 0)


@click.command(short_help="What databases' users must be granted.")
@options.configured
@click.option("--host", default="%", show_default=True, help="From where a MySQL account may connect.")
def grants(file: str, host: str) -> None:
    """Print what the sources' users must be granted, as SQL for an administrator to paste."""
    from shipper.config.load import load
    from shipper.source.grants import grants as grants_of

    config = load(file)
    for name in config.sources:
        access = config.access(name)
        queries = [job.query for job in config.jobs.values() if job.source == name]
        click.echo(f"-- source {name}: {access}")
        for statement in grants_of(access, queries, host=host):
            click.echo(statement)


@click.command(short_help="What carbon must be configured with.")
@options.configured
@options.output
@click.option(
    "--diff",
    "files",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="One of carbon's: is it right? Several times, too.",
)
def carbon_conf(file: str, output: str, files: tuple[str, ...]) -> None:
    """Print what carbon must have in its configuration for these series, to paste.

    With --diff, say which stanza of carbon's storage-schemas.conf, storage-aggregation.conf or carbon.conf decides for
    each path, and whether it is right; 1 where it is not, with what to write.
    """
    from shipper.config.load import load
    from shipper.diagnostics.carbon_conf import diff, rules, stanzas

    config = load(file, with_credentials=False)
    diffs = [diff(config, one) for one in files]
    if output == "json":
        wanted = {name: [stanza._asdict() for stanza in found] for name, found in stanzas(config).items()}
        show_json([_document(one) for one in diffs] if files else wanted)
    elif not files:
        click.echo(rules(config), nl=False)
    for one in diffs if output == "table" else ():
        _show_diff(one)
    sys.exit(0 if all(one.is_good for one in diffs) else 1)


def _document(found: "Diff") -> dict[str, object]:
    return {**found._asdict(), "is_good": found.is_good, "verdicts": [verdict._asdict() for verdict in found.verdicts]}


def _show_diff(found: "Diff") -> None:
    click.echo(f"{found.file}:")
    rows = [(_mark(is_good=one.is_good), one.path, one.stanza or "-", one.says, one.wanted) for one in found.verdicts]
    show_table(["", "PATH", "STANZA", "SAYS", "WANTED"], rows)
    click.echo(f"\n{found.write}" if found.write else "")


def _say(finding: "Finding") -> None:
    click.echo(f"{_mark(is_good=finding.is_good)} {finding.subject}: {finding.text}")
    for line in finding.remedy.splitlines():
        click.echo(f"    {line}")


def _mark(*, is_good: bool) -> str:
    return click.style("✓", fg="green") if is_good else click.style("✗", fg="red")


def dashboards(config: Config, jobs: Sequence[Job] = ()) -> list[Dashboard]:
    """Return that of all jobs and that of the service; of chosen jobs only theirs, under a name of its own."""
    prefix = config.graphite.prefix
    name = f"shipper-{prefix.replace('.', '-')}" if prefix else "shipper"
    step = config.graphite.retentions[0].step
    made = [panel for job in jobs or config.jobs.values() for panel in panels_of(job, step)]
    if jobs:
        names = [job.name.replace("@", "-") for job in jobs]
        return [Dashboard("-".join([name, *names]), ", ".join(job.name for job in jobs), made)]
    title = f"{prefix}: counted by shipper" if prefix else "Counted by shipper"
    own = Dashboard(f"{name}-self", f"shipper itself, for {prefix}" if prefix else "shipper itself", own_panels(prefix))
    return [Dashboard(f"{name}-jobs", title, made), own]


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
    from shipper.cli.setup import dashboards
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
