"""The pages agree with the code."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from handbook import anchors
from pydantic import BaseModel, TypeAdapter
from reports import EQUAL, LEADING, NOW, job, report

from shipper.cli.commands import main
from shipper.config import keys
from shipper.config.load import load
from shipper.core.paths import paths_of
from shipper.diagnostics.carbon_conf import rules
from shipper.status.alerts import ALERTS
from shipper.status.page.prometheus import metrics

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONFIGURE = (ROOT / "deploy/configure.md").read_text()
COMMANDS = (ROOT / "deploy/commands.md").read_text()
MONITOR = (ROOT / "deploy/monitor.md").read_text()
PAGES = [
    "README.md",
    "CHANGELOG.md",
    ".github/CONTRIBUTING.md",
    *(f"deploy/{page.name}" for page in sorted((ROOT / "deploy").glob("*.md"))),
    "shipper/DESIGN.md",
    "tests/README.md",
    "tests/bench/README.md",
]
SECTIONS: dict[str, type[BaseModel]] = {
    "[state]": keys.StateSection,
    "[graphite]": keys.GraphiteSection,
    "[status]": keys.StatusSection,
    "[audit]": keys.AuditSection,
    "[limits]": keys.LimitsSection,
    "[source.NAME]": keys.SourceSection,
    "[job.NAME]": keys.JobSection,
}


def _chapter(text: str, heading: str) -> str:
    """Return the part of a page below a heading of the second level."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def _words(page: str) -> int:
    return len((ROOT / page).read_text().split())


def _events() -> set[str]:
    """Return every event that the code can log."""
    text = "\n".join(file.read_text() for file in (ROOT / "shipper").rglob("*.py"))
    events = set(re.findall(r"\.(?:debug|info|warning|error|critical)\(\s*\"(\w+\.\w+)\"", text))
    events |= set(re.findall(r"Event\(\s*\"(\w+\.\w+)\"", text))
    events |= {event for pair in re.findall(r"RepeatedFailure\(\"(\w+\.\w+)\", \"(\w+\.\w+)\"", text) for event in pair}
    return events | set(re.findall(r"\"(\w+\.(?:failed|recovered))\"", text))


def _commands(group: click.Group, prefix: str = "shipper") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix} {name}")
        elif not command.hidden:
            yield f"{prefix} {name}", command


def _all_commands() -> dict[str, click.Command]:
    assert isinstance(main, click.Group)
    return dict(_commands(main))


def test_every_event_is_in_the_handbook() -> None:
    """An operator finds each event, and no other, in log-events.md."""
    page = (ROOT / "deploy/log-events.md").read_text()

    assert _events() == set(re.findall(r"^\| `(\w+\.\w+)` \|", page, re.MULTILINE))


def test_every_metric_is_in_the_handbook() -> None:
    """An operator finds each metric for Prometheus, and no other, in monitor.md."""
    chapter = _chapter(MONITOR, "Metrics for Prometheus")
    named = [
        name for cell in re.findall(r"^\| (`.*?) \|", chapter, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    ]
    every = report(job("a", paused_since=NOW, audit=EQUAL), **LEADING)

    assert sorted(named) == sorted(re.findall(r"^# TYPE (\w+) ", metrics(every), re.MULTILINE))


def test_every_alert_is_in_the_handbook() -> None:
    """An operator finds each alert, and no other, in monitor.md, with its severity and the page that it links to."""
    chapter = _chapter(MONITOR, "Alerts from Prometheus")

    assert [(alert.name, alert.severity) for alert in ALERTS] == re.findall(
        r"^\| `(\w+)` \| (\w+) \|", chapter, re.MULTILINE
    )
    for alert in ALERTS:
        page, _, anchor = alert.page.partition("#")
        assert f"]({page}#{anchor.replace('{{ $labels.state }}', 'held')})" in chapter


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_in_the_handbook(heading: str) -> None:
    """An operator finds each key of a section, in order, with its default, and no other, in configure.md."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ", _chapter(CONFIGURE, heading), re.MULTILINE)
    fields = SECTIONS[heading].model_fields

    assert list(fields) == [key for key, _ in rows]
    for key, default in rows:
        field = fields[key]
        if default == "-":
            assert field.is_required() or field.default in {None, ()}, key
        else:
            reader = TypeAdapter(field.rebuild_annotation())
            value = reader.validate_python(tomllib.loads(f"value = {default.strip('`')}")["value"])
            expected = field.get_default(call_default_factory=True)
            assert value == expected or value == reader.validate_python(expected), key


def test_every_command_is_in_the_handbook() -> None:
    """An operator finds each command, and no other, in commands.md, with its own options."""
    common = {"--config", "-o", "--utc", "--yes", "-y"}
    chapters = re.findall(r"^### (shipper(?: admin(?: state)?)? [\w-]+)(.*(?:\n(?!#).*)*)", COMMANDS, re.MULTILINE)
    commands = _all_commands()

    assert sorted(commands) == sorted(name for name, _ in chapters)
    for name, text in chapters:
        for option in (one for one in commands[name].params if isinstance(one, click.Option)):
            assert common & {*option.opts} or f"{option.opts[0]}" in text, (name, option.opts)


@pytest.mark.parametrize("page", PAGES)
def test_commands_on_pages_exist(page: str) -> None:
    """A command that a page shows exists, and takes the options that it shows."""
    commands = _all_commands()
    text = re.sub(r"^#.*$", "", (ROOT / page).read_text(), flags=re.MULTILINE)
    shown = re.findall(r"(?:^    |^\$ |`)(shipper [a-z][^`\n]*)", text, re.MULTILINE)
    for line in shown:
        words = line.split()
        length = 2 + (words[1] == "admin") + (words[1:3] == ["admin", "state"])
        name = " ".join(words[:length])
        if name == "shipper admin" or "COMMAND" in name:
            continue
        assert name in commands, line
        options = {option for one in commands[name].params for option in (*one.opts, *one.secondary_opts)}
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= options | {"-h", "--help"}, line


def test_readme_configuration_loads(tmp_path: Path) -> None:
    """The README's example is a valid configuration, and gives the paths that the README names."""
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "shipper.toml").write_text(example)
    job = load(str(tmp_path / "shipper.toml")).jobs["failed_logins"]
    paths = {path for action in ("login", "totp") for path in paths_of(job, (action,))}

    assert paths == set(re.findall(r"`(audit\.[^`]+)`", README))


@pytest.mark.parametrize("name", ["storage-schemas.conf", "storage-aggregation.conf"])
def test_carbon_samples(name: str) -> None:
    """Carbon's samples are the output of `carbon-conf` for the reference configuration."""
    sample = "".join(f"{line}\n" for line in (ROOT / "deploy" / name).read_text().splitlines() if "#" not in line)

    assert f"# {name}, " in rules(load(str(ROOT / "config/shipper.toml")))
    assert sample in rules(load(str(ROOT / "config/shipper.toml")))


@pytest.mark.parametrize("command", ["./deploy/demo", "./tests/run"])
def test_two_commands_exist(command: str) -> None:
    """The README's two commands exist and can be run."""
    assert command in README
    assert (ROOT / command).stat().st_mode & 0o111


@pytest.mark.parametrize(("page", "most"), [("README.md", 900), ("shipper/DESIGN.md", 2800)])
def test_pages_stay_short(page: str, most: int) -> None:
    """The pages that newcomers read first stay short."""
    assert _words(page) <= most


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """A relative link leads to a file, and to a heading in it."""
    file = ROOT / page
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", file.read_text()):
        leads_to = file.parent / target if target else file
        assert leads_to.exists(), target
        assert not anchor or anchor in anchors(leads_to), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_files_on_pages_exist(page: str) -> None:
    """A page names modules that exist."""
    names = set(re.findall(r"(?<![\w/*-])((?:\w+/)*[a-z_]+\.py)\b", (ROOT / page).read_text()))
    files = [
        f"/{file.relative_to(ROOT)}"
        for folder in ("demo", "shipper", "tests")
        for file in (ROOT / folder).rglob("*.py")
    ]

    assert {name for name in names if not any(file.endswith(f"/{name}") for file in files)} == set()
