"""The pages keep step with the code."""

import re
from pathlib import Path

import click
import pytest

from shipper.cli import main
from shipper.config.load import load
from shipper.core.paths import paths_of
from shipper.diagnostics.carbon_conf import rules

ROOT = Path(__file__).parents[2]
HANDBOOK = (ROOT / "deploy/README.md").read_text()
README = (ROOT / "README.md").read_text()


def _events() -> set[str]:
    """Find every event that the code can log."""
    text = "\n".join(file.read_text() for file in (ROOT / "shipper").rglob("*.py"))
    said = set(re.findall(r"\.(?:debug|info|warning|error|critical)\(\s*\"(\w+\.\w+)\"", text))
    said |= set(re.findall(r"Event\(\s*\"(\w+\.\w+)\"", text))
    said |= {event for pair in re.findall(r"RepeatedFailure\(\"(\w+\.\w+)\", \"(\w+\.\w+)\"", text) for event in pair}
    return said | set(re.findall(r"\"(\w+\.(?:failed|recovered))\"", text))


def test_every_event_is_in_the_handbook() -> None:
    """An operator finds each event, and no other, in the handbook."""
    documented = set(re.findall(r"`(\w+\.\w+)`", HANDBOOK.partition("## Log events")[2]))

    assert _events() == documented


def test_every_command_is_in_the_readme() -> None:
    """A newcomer finds each command in the README."""
    assert isinstance(main, click.Group)
    assert set(main.commands) == set(re.findall(r"^\| `shipper ([\w-]+)", README, re.MULTILINE))


def test_readme_configuration_loads(tmp_path: Path) -> None:
    """The README's example is a configuration, and gives the paths that stand below it."""
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "shipper.toml").write_text(example)
    wanted = load(str(tmp_path / "shipper.toml")).jobs["failed_logins"]
    paths = {path for action in ("login", "totp") for path in paths_of(wanted, (action,))}

    assert paths == set(re.findall(r"`(audit\.[^`]+)`", README))


@pytest.mark.parametrize("name", ["storage-schemas.conf", "storage-aggregation.conf"])
def test_carbon_samples(name: str) -> None:
    """What carbon's samples say is what `carbon-conf` prints for the reference configuration."""
    sample = "".join(f"{line}\n" for line in (ROOT / "deploy" / name).read_text().splitlines() if "#" not in line)

    assert f"# {name}, " in rules(load(str(ROOT / "config/shipper.toml")))
    assert sample in rules(load(str(ROOT / "config/shipper.toml")))


@pytest.mark.parametrize("command", ["./deploy/demo", "./tests/run"])
def test_two_commands_exist(command: str) -> None:
    """The README's two commands are there, and can be run."""
    assert command in README
    assert (ROOT / command).stat().st_mode & 0o111


@pytest.mark.parametrize("page", ["README.md", "deploy/README.md", "tests/README.md", "shipper/DESIGN.md"])
def test_links_lead_somewhere(page: str) -> None:
    """A relative link leads to a file."""
    file = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text()):
        assert (file.parent / target).exists(), target
