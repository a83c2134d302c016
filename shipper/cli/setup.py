"""Commands that set shipper up: `check`, `grants`, `carbon-conf`, `dashboard`."""

import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shipper.cli import options
from shipper.cli.output import mark, say, show_json, styled, table
from shipper.core.errors import os_errors, visible_line

if TYPE_CHECKING:
    from shipper.diagnostics.carbon_diff import Diff
    from shipper.diagnostics.finding import Finding


UNSEEN_CARBON = """\
Carbon's own configuration was not checked: add --canary, which sends a test series and reads it back (needs \
`render_url`); or give a copy of its directory with --carbon DIR."""


@options.command("Check configuration, sources and Carbon.", has_output=True)
@click.option("--offline", is_flag=True, help="Check only the file; connect nowhere.")
@click.option(
    "--carbon",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Directory of Carbon's configuration; by default shipper finds it, if Carbon runs on this machine.",
)
@click.option(
    "--canary", is_flag=True, help="Also send a test series to Carbon and read it back, as `admin doctor` does."
)
def check(file: str, output: str, *, offline: bool, carbon: Path | None, canary: bool) -> None:
    """Check the configuration, the state, the sources with the queries of their jobs, Carbon and Graphite.

    It also checks that the tables of started jobs are still those that were counted. One run shows all errors, each ✗
    with its fix, and warnings (!). Exits with 1 if a check fails, 78 if the configuration is
    invalid.
    """
    from shipper.config.load import load
    from shipper.diagnostics.carbon_diff import folder_of
    from shipper.diagnostics.check import findings
    from shipper.diagnostics.finding import Finding

    config = load(file, with_credentials=not offline)
    jobs = f"{len(config.jobs)} {'job' if len(config.jobs) == 1 else 'jobs'}"
    folder, shown = carbon or folder_of(config), []
    checks = () if offline else findings(config, carbon=folder, has_canary=canary)
    for finding in chain([Finding(True, file, f"valid, {jobs}")], checks):
        shown.append(finding)
        if output == "table":
            _show_finding(finding)
    bad = sum(not finding.is_good for finding in shown)
    if output == "json":
        show_json({"is_good": not bad, "findings": [finding._asdict() for finding in shown]})
    if bad:
        say(f"{bad} {'check' if bad == 1 else 'checks'} failed", err=True)
    elif not (offline or canary or folder):
        say(UNSEEN_CARBON, err=True)
    sys.exit(1 if bad else 0)


@options.command("Grants that the sources' users need.")
@click.option("--host", default="%", show_default=True, help="Host part of a MySQL account.")
def grants(file: str, host: str) -> None:
    """Print the grants that the sources' users need, as SQL for a database administrator."""
    from shipper.config.load import load
    from shipper.source.tables.grants import grants as grants_of

    config = load(file, with_credentials=False)
    for name in config.sources:
        access = config.access(name)
        queries = [job.query for job in config.jobs.values() if job.source == name]
        say(f"-- source {name}: {access}")
        for statement in grants_of(access, queries, host=host):
            say(statement)


@options.command("Carbon configuration for these series.", has_output=True)
@click.option(
    "--diff",
    "files",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="A Carbon configuration file to check; may be repeated.",
)
def carbon_conf(file: str, output: str, files: tuple[str, ...]) -> None:
    """Print the stanzas that Carbon's configuration needs for these series.

    With --diff, check Carbon's storage-schemas.conf, storage-aggregation.conf, carbon.conf, whitelist.conf or
    blacklist.conf: show the stanza that applies to each path, and the changes to make. Exits with 1 if there are any.
    """
    from shipper.config.load import load
    from shipper.diagnostics.carbon_conf import rules, stanzas
    from shipper.diagnostics.carbon_diff import diff

    config = load(file, with_credentials=False)
    diffs = [diff(config, one) for one in files]
    if output == "json":
        needed = {name: [stanza._asdict() for stanza in group] for name, group in stanzas(config).items()}
        show_json([_document(one) for one in diffs] if files else needed)
    elif not files:
        say(rules(config), nl=False)
    for one in diffs if output == "table" else ():
        _show_diff(one)
    sys.exit(1 if any(one.write for one in diffs) else 0)


def _document(diff: "Diff") -> dict[str, object]:
    return {**diff._asdict(), "is_good": not diff.write, "verdicts": [verdict._asdict() for verdict in diff.verdicts]}


def _show_diff(diff: "Diff") -> None:
    say(f"{diff.file}:")
    rows = [(mark(is_good=one.is_good), one.path, one.stanza or "-", one.present, one.needed) for one in diff.verdicts]
    say(table(["", "PATH", "STANZA", "PRESENT", "NEEDED"], rows))
    say(f"\n{diff.write}" if diff.write else "")


def _show_finding(finding: "Finding") -> None:
    is_warning = finding.is_good and finding.remedy
    sign = styled("!", "yellow") if is_warning else mark(is_good=finding.is_good)
    say(sign, visible_line(f" {finding.subject}: {finding.text}"))
    for line in finding.remedy.splitlines():
        say(f"    {line}")


@options.command("Dashboards for Graphite or Grafana.")
@options.yes
@click.option(
    "-d", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Write them to this directory, one file each."
)
@click.option("--push", "url", metavar="URL", help="Store them in this graphite-web.")
@click.argument("kind", type=click.Choice(["graphite", "grafana"]))
@options.jobs
def dashboard(
    file: str, folder: Path | None, url: str | None, kind: str, jobs: tuple[str, ...], *, is_sure: bool
) -> None:
    """Print two dashboards, of all jobs and of the service itself; or a single one, of the named jobs.

    Grafana reads dashboards from files: -d writes them, with the provisioning file that lets Grafana find them.
    """
    from shipper.config.load import load
    from shipper.graphite.dashboards import grafana
    from shipper.graphite.dashboards import graphite_web as graphite
    from shipper.graphite.dashboards.panels import dashboards

    if url is not None and (kind == "grafana" or not url.startswith(("http://", "https://"))):
        raise click.UsageError(
            "--push needs `graphite`, and an address such as http://graphite.internal; for `grafana` use -d DIR."
        )
    config = load(file, with_credentials=False)
    chosen = [job for name in jobs for job in config.named(name)]
    boards = dashboards(config.graphite.prefix, config.jobs.values(), chosen, config.graphite.retentions[0].step)
    documents = {one.name: grafana.document(one) if kind == "grafana" else graphite.state(one) for one in boards}
    if folder is not None:
        _write(folder, documents, grafana.provisioning(str(folder.absolute())) if kind == "grafana" else None)
    if url is not None:
        _push(url, documents, is_sure=is_sure)
    if folder is None and url is None:
        show_json(documents)


def _write(folder: Path, documents: dict[str, Any], provisioning: str | None) -> None:
    import json

    files = {folder / f"{name}.json": f"{json.dumps(document, indent=1)}\n" for name, document in documents.items()}
    if provisioning is not None:
        files[folder / "shipper.yaml"] = provisioning
    with os_errors(f"write to {folder}", "Name another directory with -d."):
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            _put(file, text)
            say(str(file))
    if provisioning is not None:
        say("Also copy shipper.yaml to Grafana's provisioning/dashboards, and restart Grafana.", err=True)


def _put(file: Path, text: str) -> None:
    """Write a file in one step; a link or a pipe in its place is replaced, and nothing written through it."""
    scratch = file.with_name(f".{file.name}.new")
    scratch.unlink(missing_ok=True)
    with scratch.open("x") as opened:
        opened.write(text)
    scratch.replace(file)


def _push(url: str, documents: dict[str, Any], *, is_sure: bool) -> None:
    """Store dashboards; ask before one is overwritten that another user has changed."""
    from shipper.graphite.dashboards.graphite_web import MARK, GraphiteWeb, digest

    web = GraphiteWeb(url)
    for name, state in documents.items():
        present = web.load(name)
        is_ours = present is None or present.get(MARK) == digest(present)
        question = f"{web.page(name)} was changed in graphite-web, or was not made by shipper. Overwrite it?"
        if is_ours or is_sure or click.confirm(visible_line(question), err=True):
            web.save(name, state)
            say(f"{'new' if present is None else 'same' if present == state else 'replaced'}: {web.page(name)}")
        else:
            say(f"unchanged: {web.page(name)}")
