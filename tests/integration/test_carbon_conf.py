"""`carbon-conf`: Carbon with the printed stanzas stores counts correctly; `--diff` reads files as Carbon does."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from sqlite3 import connect
from typing import Any

import pytest
import whisper
from builders import points
from harness import Shipper, wait_for
from servers import SCHEMAS

from shipper.config.load import load
from shipper.core.paths import COUNTS, GAUGES
from shipper.demo.carbon_cache import CarbonCache
from shipper.diagnostics import carbon_diff
from shipper.diagnostics.carbon_diff import _paths
from shipper.graphite.carbon import Carbon

PACKAGED = Path("/usr/share/doc/graphite-carbon/examples")
EXAMPLES = own if (own := Path(sys.prefix) / "conf").is_dir() else PACKAGED
JOBS = """
[job.logins]
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
name = "logins.{action}.{measure}"
measure = { count = "count", ms = "sum:duration_ms", slowest = "max:duration_ms", fastest = "min:duration_ms", \
users = "distinct:outcome" }

[job.tagged]
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
name = "tagged.{measure}"
tags = { action = "{action}" }
measure = { slowest = "max:duration_ms" }
"""
_CARBON = """
import json, sys
from carbon.conf import settings
settings["CONF_DIR"] = sys.argv[1]
from carbon import storage
schemas, aggregations = storage.loadStorageSchemas(), storage.loadAggregationSchemas()
def first(path, among):
    return next((one.name, one.archives) for one in among if one.matches(path))
def read(path):
    (schema, archives), (aggregation, (factor, method)) = first(path, schemas), first(path, aggregations)
    spans = ",".join(f"{one.secondsPerPoint}s:{one.secondsPerPoint * one.points}s" for one in archives)
    factor = 0.5 if factor is None else factor
    return [[schema, spans], [aggregation, f"aggregationMethod = {method or 'average'}, xFilesFactor = {factor:g}"]]
print(json.dumps({path: read(path) for path in json.load(sys.stdin)}))
"""


@pytest.fixture
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Shipper:
    """Provide the program with a prefix, for which one pattern is enough, or without one."""
    url = f"sqlite:///{tmp_path}/app.db"
    with closing(connect(tmp_path / "app.db", isolation_level=None)) as connection:
        connection.execute(SCHEMAS["sqlite"])
        connection.execute("INSERT INTO audit_trail VALUES (1, datetime('now'), NULL, 'login', 'ok', 7)")
    program = Shipper(tmp_path, url=url, port=9, jobs=JOBS)
    text = program.config.read_text().replace('"1m:1d"', '"1m:1d,1h:30d"')
    program.config.write_text(text if getattr(request, "param", "audit") else text.replace('prefix = "audit"\n', ""))
    return program


def paste(folder: Path, printed: str, before: str = "") -> None:
    """Write printed stanzas into Carbon's files, before other text."""
    _, *parts = re.split(r"^# ([a-z-]+\.conf), .*\n", printed, flags=re.MULTILINE)
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        (folder / name).write_text(text + before)


def read_by_carbon(folder: Path, paths: Sequence[str]) -> dict[str, list[list[str]]]:
    """Return the stanzas that Carbon itself applies to paths, and their effects."""
    python = sys.executable if find_spec("carbon") else "/usr/bin/python3"  # that of Debian's carbon
    command = [python, "-c", _CARBON, str(folder)]
    done = subprocess.run(command, input=json.dumps(paths), capture_output=True, text=True, check=True)
    found: dict[str, list[list[str]]] = json.loads(done.stdout)
    return found


def diffs(app: Shipper, *files: str) -> list[dict[str, Any]]:
    """Return the comparisons of files."""
    done = app.call("admin carbon-conf", "-o", "json", *(word for file in files for word in ("--diff", file)))
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (0 if all(one["is_good"] for one in found) else 1)
    return found


@pytest.mark.parametrize("app", [None], indirect=True)
def test_carbon_makes_files_so(app: Shipper, tmp_path: Path) -> None:
    """A real Carbon with the printed stanzas creates the configured archives, with the method of each measure."""
    storage = tmp_path / "carbon/storage/whisper"
    with closing(CarbonCache(tmp_path / "carbon", retentions="1m:1d")) as carbon:
        paste(tmp_path / "carbon/conf", app.call("admin carbon-conf").stdout.partition("\n# carbon.conf")[0])
        carbon.start()
        app.configure("port = 9", f"port = {carbon.port}")
        own = [real for _, real in _paths(load(str(app.config))) if "shipper" in real]
        with closing(Carbon("127.0.0.1", carbon.port, timeout=10)) as sender:
            sender.deliver(points("".join(f"{path} 1 {int(time.time())}\n" for path in own).encode()))
        assert app.call("once").returncode == 0
        wait_for(lambda: len(carbon.sums()) == len(own) + 6, "all files")
    made = {
        file.stem if "_tagged" not in str(file) else "tagged": whisper.info(str(file))
        for file in storage.rglob("*.wsp")
    }

    assert {info["xFilesFactor"] for info in made.values()} == {0}
    archives = {tuple((one["secondsPerPoint"], one["retention"]) for one in info["archives"]) for info in made.values()}
    assert archives == {((60, 86400), (3600, 2592000))}
    assert {name: info["aggregationMethod"] for name, info in made.items()} == {
        **dict.fromkeys((*COUNTS, "count", "ms"), "sum"),
        **dict.fromkeys((*GAUGES, "slowest", "tagged", "users"), "max"),
        "fastest": "min",
        "up": "min",
    }


def test_coarse_distinct_values_are_explained(app: Shipper) -> None:
    """The stanza of distinct values tells what a coarser archive shows of them."""
    printed = app.call("admin carbon-conf").stdout

    assert "the largest number\n[shipper-distinct audit]\n" in printed
    assert printed.count("distinct values") == 1


@pytest.mark.parametrize("app", ["audit", None], indirect=True)
def test_diff_reads_as_carbon(app: Shipper, tmp_path: Path) -> None:
    """`--diff` shows for each path the stanza that Carbon itself applies, and its effect.

    Mutants: the last stanza that matches; match instead of search; the default factor 0.
    """
    last = "[all]\npattern = .\nretentions = 60:1440,3600:720\naggregationMethod = last\n"
    real = dict(_paths(load(str(app.config))))
    names = ["storage-schemas.conf", "storage-aggregation.conf"]
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        folder.mkdir()
        for name in names:
            (folder / name).write_text((EXAMPLES / f"{name}.example").read_text())
    paste(tmp_path / "ours", app.call("admin carbon-conf").stdout, last)
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        expected = read_by_carbon(folder, list(real.values()))
        for column, found in enumerate(diffs(app, *(str(folder / name) for name in names))):
            told = {one["path"]: [one["stanza"], one["present"]] for one in found["verdicts"]}
            assert told == {shown: expected[path][column] for shown, path in real.items()}
            assert found["is_good"] == (folder.name == "ours")


def test_what_to_write(app: Shipper, tmp_path: Path) -> None:
    """The shown change corrects a file, also one with an older stanza of shipper; Carbon's sample has a trap."""
    sample = EXAMPLES / "storage-aggregation.conf.example"
    file = tmp_path / "here.conf"
    file.write_text(
        "[shipper audit]\npattern = ^nothing\nxFilesFactor = 0\naggregationMethod = sum\n" + sample.read_text()
    )
    shown = app.call("admin carbon-conf", "--diff", str(file))
    (found,) = diffs(app, str(file))
    where, stanzas = found["write"].split(":\n", 1)
    file.write_text(stanzas + sample.read_text())

    assert shown.returncode == 1
    present, needed = (f"aggregationMethod = {method}, xFilesFactor = 0" for method in ("max", "sum"))
    line = rf"^✗ +\S*logins\.\{{action\}}\.count +sum +{present} +{needed}$"
    assert re.search(line, shown.stdout, re.MULTILINE)
    assert shown.stdout.endswith(f"\n\n{found['write']}\n")
    assert where == "# remove [shipper audit], and\n# insert before [sum]"
    assert app.call("admin carbon-conf", "--diff", str(file)).returncode == 0


def test_two_shippers_of_one_carbon(app: Shipper, tmp_path: Path) -> None:
    """The stanzas of another prefix have other names: Carbon accepts one section of a name, and none is to be removed.

    Mutant: names without the prefix.
    """
    files = [tmp_path / name for name in ("storage-schemas.conf", "storage-aggregation.conf")]
    paste(tmp_path, app.call("admin carbon-conf").stdout)
    app.configure('prefix = "audit"', 'prefix = "billing"')
    for file, found in zip(files, diffs(app, *map(str, files)), strict=True):
        assert found["write"].startswith("# insert in the file:\n")
        file.write_text(file.read_text() + found["write"])
    second = diffs(app, *map(str, files))
    app.configure('prefix = "billing"', 'prefix = "audit"')

    assert all(found["is_good"] for found in (*second, *diffs(app, *map(str, files))))


def test_creates(app: Shipper, tmp_path: Path) -> None:
    """In carbon.conf the default of 50 new series a minute is an error; a second section is never printed."""
    file = tmp_path / "carbon.conf"
    file.write_text("[cache]\n")
    (found,) = diffs(app, str(file))
    file.write_text(f"[cache]\n{found['write']}")
    printed = app.call("admin carbon-conf").stdout.partition("# carbon.conf, ")[2]

    assert printed.startswith("in its section [cache]: change the existing line, and restart carbon;")
    assert printed.endswith("\nMAX_CREATES_PER_MINUTE = inf\n")
    assert "\n[" not in printed
    assert list(found["verdicts"][0].values()) == ["MAX_CREATES_PER_MINUTE", "cache", "50", "inf", False]
    assert diffs(app, str(file))[0]["is_good"]


def test_connections(app: Shipper, tmp_path: Path) -> None:
    """Too few connections are an error, in each section. Mutants: of [cache] only; one is enough."""
    file = tmp_path / "carbon.conf"
    creates = "MAX_CREATES_PER_MINUTE = inf\n"
    sections = {"cache": "1", "cache:b": "inf", "relay": "4", "aggregator": "5"}
    text = "".join(f"[{name}]\n{creates}MAX_RECEIVER_CONNECTIONS = {number}\n" for name, number in sections.items())
    file.write_text(text)
    (found,) = diffs(app, str(file))

    shown = [list(one.values()) for one in found["verdicts"][1:]]
    assert shown == [
        ["MAX_RECEIVER_CONNECTIONS", name, sections[name], "5 or more", False] for name in ("cache", "relay")
    ]
    assert re.findall(r"in \[(\w+)\].*\n(.*)", found["write"]) == [
        (name, "MAX_RECEIVER_CONNECTIONS = inf") for name in ("cache", "relay")
    ]


@pytest.mark.parametrize("app", ["audit", None], indirect=True)
@pytest.mark.parametrize(
    ("lists", "dropped", "write"),
    [
        ({"blacklist.conf": "# all\n\n(\nlogins\\..*(ms|count)$\nnever\n"}, {"count", "ms"}, "logins\\..*(ms|count)$"),
        ({"whitelist.conf": "(slowest|fastest|shipper)\n"}, {"count", "ms", "users"}, "# add to"),
        ({"whitelist.conf": "# nothing\n"}, set(), ""),
        ({"blacklist.conf": "never\n", "whitelist.conf": "."}, set(), ""),
        ({}, set(), ""),
    ],
)
def test_lists(app: Shipper, tmp_path: Path, lists: dict[str, str], dropped: set[str], write: str) -> None:
    """Series that a real Carbon drops by its lists are shown, by the file itself and by carbon.conf.

    Mutants: a whitelist that has no pattern drops all; match instead of search; stop at a pattern that is not one.
    """
    carbon = CarbonCache(tmp_path / "carbon", retentions="1m:1d")
    conf = tmp_path / "carbon/conf/carbon.conf"
    conf.write_text(conf.read_text() + "USE_WHITELIST = True\n")
    for name, text in lists.items():
        (conf.parent / name).write_text(text)
    real = dict(_paths(load(str(app.config))))
    paths = {shown: path for shown, path in real.items() if "logins" in path}
    slot = int(time.time()) // 60 * 60
    twice = "".join(f"{path} 1 {slot - 60}\n{path} 1 {slot}\n" for path in paths.values())
    with closing(carbon):
        carbon.start()
        with closing(Carbon("127.0.0.1", carbon.port, timeout=10)) as sender:
            sender.deliver(points(f"{twice}x.slowest 1 {slot}\n"))
        # carbon/cache.py SortedStrategy: what has fewer datapoints is written later
        wait_for(lambda: "x.slowest" in carbon.sums(), "the last series")
        missing = {shown for shown, path in paths.items() if path not in carbon.sums()}
    (of_conf,) = diffs(app, str(conf))
    of_lists = diffs(app, *(str(conf.parent / name) for name in lists)) if lists else []

    assert {shown.rpartition(".")[2] for shown in missing} == dropped
    for verdicts in (of_conf["verdicts"], [verdict for one in of_lists for verdict in one["verdicts"]]):
        assert {one["path"] for one in verdicts if one["present"] == "dropped"} & paths.keys() == missing
    assert (of_conf["is_good"], write in of_conf["write"]) == (not dropped, True)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("storage-schemas.conf", None, "No such file"),
        ("storage-schemas.conf", "[a]\n[a]\n", ":2: section [a] exists already"),
        ("storage-schemas.conf", "[a]\npattern = .\nretentions = 1x:1d\n", "is not a duration"),
        ("storage-schemas.conf", "[a]\npattern = (\nretentions = 1m:1d\n", "unterminated subpattern"),
        ("storage-schemas.conf", "[a]\npattern = a%b\nretentions = 1m:1d\n", "pattern in [a] has a % that "),
        ("storage-schemas.conf", "[a]\npattern = %(x)s\n", "pattern in [a] has a % that "),
        ("storage-schemas.conf", "[a]\nx = %(x)s\n", "x in [a] has a % that "),
        ("carbon.conf", "[cache]\nLOG_DIR = /var/log/100%\n", "log_dir in [cache] has a % that "),
        ("other.conf", "[relay]\nx = 1\n", "not a file of Carbon"),
    ],
)
def test_not_carbons(app: Shipper, tmp_path: Path, name: str, text: str | None, reason: str) -> None:
    """A file that Carbon cannot read either is rejected with its name, without a traceback."""
    if text is not None:
        (tmp_path / name).write_text(text)
    ended = app.call("admin carbon-conf", "--diff", str(tmp_path / name))

    assert ended.returncode == 78
    assert f"read {tmp_path}/{name}:" in ended.stderr
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


def test_percent(app: Shipper, tmp_path: Path) -> None:
    """A % means to `--diff` what it means to Carbon: %% is one, and %(KEY)s is the value of a key.

    Mutant: read values as they stand.
    """
    last = "[all]\npattern = .\nretentions = 1m:1d\naggregationMethod = last\n"
    schemas = "[a]\nstep = 5m\npattern = logins|(%%)\nretentions = %(step)s:2d\n"
    (tmp_path / "storage-schemas.conf").write_text(schemas + last)
    (tmp_path / "storage-aggregation.conf").write_text("[b]\npattern = 5%%|(s)\naggregationMethod = min\n" + last)
    (tmp_path / "carbon.conf").write_text("[cache]\nmost = inf\nMAX_CREATES_PER_MINUTE = %(most)s\n")
    real = dict(_paths(load(str(app.config))))
    expected = read_by_carbon(tmp_path, list(real.values()))
    *stanzas, settings = diffs(
        app, *(f"{tmp_path}/{name}.conf" for name in ("storage-schemas", "storage-aggregation", "carbon"))
    )

    for column, found in enumerate(stanzas):
        told = {one["path"]: [one["stanza"], one["present"]] for one in found["verdicts"]}
        assert told == {shown: expected[path][column] for shown, path in real.items()}
    assert settings["is_good"]


def test_empty(app: Shipper, tmp_path: Path) -> None:
    """The name of an empty file identifies it, and Carbon's defaults apply."""
    (tmp_path / "storage-aggregation.conf").write_text("")
    (found,) = diffs(app, f"{tmp_path}/storage-aggregation.conf")

    assert {(one["stanza"], one["present"]) for one in found["verdicts"]} == {
        (None, "aggregationMethod = average, xFilesFactor = 0.5")
    }
    assert found["write"].startswith("# insert in the file:\n[shipper-itself audit]\n")


def test_check_reads_carbons_directory(app: Shipper, tmp_path: Path) -> None:
    """`check --carbon` compares all files; Debian ships none for aggregations, and Carbon then takes its defaults.

    Mutants: a missing file is right; the text to write is left out.
    """
    folder = tmp_path / "etc"
    folder.mkdir()
    for name in ("storage-schemas.conf", "carbon.conf"):
        (folder / name).write_text((EXAMPLES / f"{name}.example").read_text())

    def found() -> dict[str, dict[str, Any]]:
        checked = app.call("check", "-o", "json", "--carbon", str(folder))
        findings = json.loads(checked.stdout)["findings"]
        return {Path(one["subject"]).name: one for one in findings if one["subject"].startswith("carbon /")}

    first = found()
    _, *parts = re.split(r"^# ([a-z-]+\.conf), .*\n", app.call("admin carbon-conf").stdout, flags=re.MULTILINE)
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        before = folder / name
        old = (before.read_text() if before.exists() else "").replace("[cache]", "[old]")
        before.write_text(("[cache]\n" if name == "carbon.conf" else "") + text + old)
    second = found()

    names = {"storage-schemas.conf", "storage-aggregation.conf", "carbon.conf"}
    assert first.keys() == second.keys() == names
    assert not any(one["is_good"] for one in first.values())
    missing = first["storage-aggregation.conf"]
    assert missing["text"].startswith("does not exist, so Carbon uses its defaults; audit.logins.{action}.count: ")
    assert "[shipper audit]\npattern = " in missing["remedy"]
    assert all(one["is_good"] for one in second.values()), second


@pytest.mark.parametrize("host", ["127.0.0.1", socket.gethostname()])
def test_carbon_on_this_machine(app: Shipper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Carbon's directory is found by its port, if its host is loopback, or has the name of this machine."""
    app.configure("[graphite]\n", f'[graphite]\nhost = "{host}"\n')
    monkeypatch.setattr(carbon_diff, "FOLDERS", (tmp_path / "none", tmp_path))
    (tmp_path / "carbon.conf").write_text("[cache]\nport = 9\nLINE_RECEIVER_PORT = %(port)s\n")
    config = load(str(app.config))
    found = carbon_diff.folder_of(config)
    (tmp_path / "carbon.conf").write_text("[cache]\nLINE_RECEIVER_PORT = %\n")  # `diff` reports it
    broken = carbon_diff.folder_of(config)
    (tmp_path / "carbon.conf").write_text("[cache]\n")  # port 2003, another Carbon

    assert found == broken == tmp_path
    assert carbon_diff.folder_of(config) is None
