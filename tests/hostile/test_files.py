"""Files that somebody else has put in the way: commands of root, and what is no file."""

import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest
from harness import CONFIG, EVENTS, Shipper, shipper, wait_for
from servers import SCHEMAS

NOBODY = 65534
COMMANDS = (
    "check",
    "once",
    "run",
    "status",
    "history events",
    "preview events",
    "reconcile",
    "backup",
    "admin forget events --yes",
    "admin rename events other --yes",
    "admin seek events --to end --yes",
    "backfill events --from 2h --until 1h --yes",
    "reset events --emptied --yes",
)
ALL_IN_ONE = """
import os, pathlib, sys
from shipper.cli.commands import main
import shipper.service.daemon, shipper.runtime.comparer, shipper.diagnostics.check, shipper.diagnostics.preview
for command in sys.argv[2:]:
    words = command.split()
    if words[0] == "link":
        pathlib.Path(words[1]).unlink(missing_ok=True)
        os.symlink(words[2], words[1])
        continue
    if words[0] == "unlink":
        pathlib.Path(words[1]).unlink()
        continue
    if (child := os.fork()) == 0:
        main([*words, "--config", sys.argv[1]], prog_name="shipper")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(f"\\nENDED {command}: {code}", file=sys.stderr, flush=True)
"""
"""Runs commands one after the other, each in a process of its own: to import everything takes longer than a command."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose")


class Place:
    """A configuration, a table, and a state directory that belongs to a user who is not to be trusted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state/shipper.db"
        self.state.parent.mkdir()
        os.chown(self.state.parent, NOBODY, NOBODY)
        with closing(sqlite3.connect(folder / "app.db")) as table:
            table.execute(SCHEMAS["sqlite"])
            table.execute("INSERT INTO audit_trail (created_at, action) VALUES (datetime('now'), 'login')")
            table.commit()
        self.config = folder / "shipper.toml"
        text = CONFIG.format(folder=self.state.parent, port=9, url=f"sqlite:///{folder}/app.db", jobs=EVENTS)
        self.config.write_text(
            text.replace(
                "[source.app]", 'render_url = "http://127.0.0.1:9"\n\n[status]\nlisten = "off"\n\n[source.app]'
            )
        )

    def call(self, *commands: str, prefix: Sequence[str] = ()) -> list[tuple[str, int, str]]:
        """Run commands; return each with its exit code and its output on stderr. `link` and `unlink` change links."""
        script = [*prefix, sys.executable, "-c", ALL_IN_ONE, str(self.config), *commands]
        ended = subprocess.run(script, capture_output=True, check=False, timeout=120)
        parts = re.split("\nENDED (.*): (-?[0-9]+)\n", ended.stderr.decode())
        return [(command, int(code), output) for output, command, code in zip(*[iter(parts)] * 3, strict=False)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give a place in which only root can reach the state's directory by its path, as with systemd's dynamic users."""
    made = Place(tmp_path)
    yield made
    os.chown(made.state.parent, 0, 0)


@as_root
def test_root_follows_no_link(place: Place) -> None:
    """No command of root makes, empties, reads or gives away the target of a link in the state's directory.

    Mutants: open the lock without `enter`; let `enter` look at the database alone.
    """
    target, missing = place.folder / "target", place.folder / "missing"
    target.write_text("precious")
    target.chmod(0o600)
    few = ("once", "status", "backup")
    links = [f"{place.state}{suffix}" for suffix in ("-wal", "-shm", "-journal", "", ".lock")]
    steps = [(f"link {link} {target}", *few, f"unlink {link}") for link in links]
    lock = links[-1]
    ended = place.call(
        *("once", *chain.from_iterable(steps)),
        *(f"link {lock} {missing}", "once"),
        *(f"link {lock} {target}", *COMMANDS),
    )

    assert [command for command, *_ in ended] == ["once", *few * len(links), "once", *COMMANDS]
    for command, code, output in ended[1:]:
        assert (command, code) == (command, 1 if command == "check" else 78), output
        assert command == "check" or "is a symbolic link" in output
        assert "Traceback" not in output
    assert not missing.exists()
    assert target.read_text() == "precious"
    assert (target.stat().st_uid, stat.S_IMODE(target.stat().st_mode)) == (0, 0o600)


@as_root
def test_root_becomes_the_owner(place: Place) -> None:
    """In the state's directory root is its owner, whatever is put there at that moment; it may still read credentials.

    Mutants: leave the process root; leave it all capabilities.
    """
    script = """
import pathlib, sys
from shipper.state.store import State
secret = pathlib.Path(sys.argv[2])
State(sys.argv[1]).close()
print(secret.read_text())
for attempt in (lambda: secret.write_text("x"), secret.with_name("new").touch, lambda: secret.chmod(0o666)):
    try:
        attempt()
    except PermissionError:
        print("denied")
print(pathlib.Path("/proc/self/status").read_text())
"""
    secret = place.folder / "secret"
    secret.write_text("correct-horse")
    secret.chmod(0o600)
    ended = subprocess.run(
        [sys.executable, "-c", script, str(place.state), str(secret)], capture_output=True, text=True, check=True
    )
    facts = dict(line.split(":\t", 1) for line in ended.stdout.splitlines() if ":\t" in line)

    assert ended.stdout.splitlines()[:4] == ["correct-horse", "denied", "denied", "denied"]
    assert facts["Uid"].split() == [str(NOBODY)] * 4
    assert facts["Gid"].split() == [str(NOBODY)] * 4
    assert facts["CapEff"] == facts["CapPrm"] == f"{4:016x}"
    assert {file.stat().st_uid for file in place.state.parent.iterdir()} == {NOBODY}


@as_root
def test_root_without_its_capability(place: Place) -> None:
    """In a container that gives root no right to read everything, the error names the capability.

    Mutant: report that there is no such file.
    """
    setpriv = ("setpriv", "--bounding-set", "-dac_read_search")
    for command, code, output in place.call("once", "status", "backup", prefix=setpriv):
        assert (command, code) == (command, 78), output
        assert "Traceback" not in output
        assert "CAP_DAC_READ_SEARCH: start its container with it" in output


@as_root
def test_root_works_for_the_owner(place: Place) -> None:
    """Commands of root work in a directory that only its owner and root may use, and their files are the owner's."""
    ended = place.call("check", "once", "status", "preview events", "backup", "admin forget gone --yes")

    assert [(command, code) for command, code, _ in ended] == [
        *(("check", 1), ("once", 1)),  # there is no Carbon
        *(("status", 3), ("preview events", 0), ("backup", 0)),
        ("admin forget gone --yes", 78),
    ], ended
    assert "capture.finished" in ended[1][2]
    assert "no job 'gone' in the state" in ended[-1][2]
    assert {file.stat().st_uid for file in place.state.parent.iterdir()} == {NOBODY}


@as_root
def test_directory_of_root_that_others_may_write(place: Place) -> None:
    """Root does not work where others could put links while no user owns the directory."""
    os.chown(place.state.parent, 0, NOBODY)
    place.state.parent.chmod(0o770)
    ((_, code, output),) = place.call("once")

    assert code == 78
    assert "other users may write there" in output
    assert "hint: " in output
    assert list(place.state.parent.iterdir()) == []


@as_root
def test_lock_of_others(place: Place) -> None:
    """Other users cannot take the lock, nor one of an older release, which all can read. Mutant: keep the mode."""
    place.state.parent.chmod(0o755)
    lock = Path(f"{place.state}.lock")
    lock.touch(0o644)
    os.chown(lock, NOBODY, NOBODY)
    place.call("once")

    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


@as_root
def test_copies_that_are_no_files(place: Place) -> None:
    """A copy goes to no device, pipe or file of another user, and comes from none; a device keeps its mode.

    Mutants: look at the size alone; wait for the other end of a pipe; read a device to its end.
    """
    device, pipe, other = (place.folder / name for name in ("null", "pipe", "other"))
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    device.chmod(0o666)
    os.mkfifo(pipe)
    other.touch()
    os.chown(other, NOBODY, NOBODY)
    place.call("once")
    targets = [f"backup {file}" for file in (device, pipe, other)]
    ended = place.call(*targets, f"restore --yes {pipe}", f"restore --yes {device}")

    assert [(command, code) for command, code, _ in ended[:3]] == [(command, 78) for command in targets], ended
    assert [code for _, code, _ in ended[3:]] == [78, 78]
    assert all("not a regular file" in output and "hint: " in output for *_, output in ended[3:])
    assert (stat.S_IMODE(device.stat().st_mode), other.stat().st_size) == (0o666, 0)


def test_dashboards_follow_no_link(place: Place) -> None:
    """Dashboards in a folder of another user replace links and pipes there. Mutant: write into what is there."""
    target, folder = place.folder / "target", place.folder / "dashboards"
    target.write_text("precious")
    folder.mkdir()
    (folder / "shipper-audit-jobs.json").symlink_to(target)
    os.mkfifo(folder / "shipper.yaml")
    ended = place.call(f"admin dashboard grafana -d {folder}")

    assert [code for _, code, _ in ended] == [0], ended
    assert target.read_text() == "precious"
    assert json.loads((folder / "shipper-audit-jobs.json").read_text())["panels"]
    assert {file.name for file in folder.iterdir() if file.is_file() and not file.is_symlink()} == {
        *("shipper-audit-jobs.json", "shipper-audit-self.json", "shipper.yaml")
    }


SPOILED = {
    "a pipe": "import os; os.mkfifo(path)",
    "a total without end": "sql('UPDATE total SET value = ?', '1e999999999')",
    "the last revision": "sql('UPDATE total SET revision = ?', 2**63 - 1)",
    "a group that is no JSON": "sql('UPDATE series SET \"group\" = ?', '[' * 100000)",
    "tables of another program": "sql('DROP TABLE total')",
    "a view without an end": """sql('''
        PRAGMA user_version = 0;
        DROP TABLE watermark;
        CREATE VIEW watermark (job, source, id_table, id_column, value, captured, complete_until, updated) AS
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i, i, i, i, i, i, i FROM n WHERE i < 0
    ''')""",
}
SPOIL = """
import pathlib, shutil, sqlite3, sys
path, good, statement = sys.argv[1:]
pathlib.Path(path).unlink(missing_ok=True)
def sql(statement, *values):
    shutil.copy(good, path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(statement, values) if values else connection.executescript(statement)
    connection.commit()
    connection.close()
exec(statement)
"""


@pytest.mark.parametrize("spoiled", SPOILED)
def test_state(spoiled: str, state_of: Place) -> None:
    """With a state of rubbish no command waits or ends in a traceback: they say what they read, and what to do."""
    good = state_of.folder / "good.db"
    if not good.exists():
        state_of.call("once")
        shutil.copy(state_of.state, good)
    subprocess.run([sys.executable, "-c", SPOIL, str(state_of.state), str(good), SPOILED[spoiled]], check=True)
    ended = state_of.call("once", "check", "status", "history events", "preview events", "backup")

    assert len(ended) == 6
    for command, code, output in ended:
        assert "Traceback" not in output, (command, output)
        assert code in {0, 1, 3, 78}, (command, output)
    if spoiled == "a pipe":
        assert [code for _, code, _ in ended] == [78, 1, 78, 78, 78, 78]
    elif spoiled in {"tables of another program", "a view without an end"}:
        assert [code for _, code, _ in ended] == [1] * 6
        assert "restore the state from a backup" in ended[0][2]


@pytest.fixture(scope="module")
def state_of(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Give a place that tests share."""
    made = Place(tmp_path_factory.mktemp("state"))
    os.chown(made.state.parent, os.geteuid(), -1)
    return made


def test_configuration_of_the_service(tmp_path: Path) -> None:
    """A reload of a file of rubbish is rejected with its line, by command and by signal, and the service continues."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as table:
        table.execute(SCHEMAS["sqlite"])
    app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=9)
    good = app.config.read_text()
    app.start()
    try:
        for added, message in (
            (f"x = {'[' * 100_000}", "nested too deeply"),
            (f"x = {'9' * 5000}", "a number of 5000 digits"),
            ('x = "\0"', "a NUL character"),
            ('[defaults]\nevery = "2s"', "Cannot declare"),
        ):
            app.config.write_text(f"{good}\n{added}\n")
            # as systemd does it: else the command reads the file itself, and finds the error first
            ended = shipper("admin", "reload", "--config", str(app.config), RUNTIME_DIRECTORY=str(tmp_path))
            assert ended.returncode == 78
            assert re.search(rf"shipper\.toml:[0-9]+: .*{message}", ended.stderr), ended.stderr
            assert "Traceback" not in ended.stderr
        os.kill(app.pid, signal.SIGHUP)
        wait_for(lambda: app.events().count("config.rejected") == 5, "the reload by signal")
        app.config.write_text(good)

        assert app.call("admin reload").returncode == 0
    finally:
        app.stop()
    assert "Traceback" not in app.text()


def test_credentials_that_all_can_read() -> None:
    """The check warns of a file with a password that all users can read, and so does the service once at its start.

    Mutants: no warning; an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        os.chown(place.state.parent, os.geteuid(), -1)
        place.folder.chmod(0o755)
        secret = place.folder / "mysql.cnf"
        secret.write_text("[client]\nuser = me\n")
        secret.chmod(0o644)
        other = '\n[source.other]\nurl = "mysql+pymysql://127.0.0.1:9/app"\ncredentials = "mysql.cnf"\n'
        place.config.write_text(place.config.read_text().replace('table = "', 'source = "app"\ntable = "') + other)
        checked = shipper("check", "-o", "json", "--config", str(place.config))
        findings = {one["subject"]: one for one in json.loads(checked.stdout)["findings"]}
        shown = shipper("check", "--config", str(place.config)).stdout
        text = place.config.read_text()
        app = Shipper(place.folder, url="", port=9)
        app.config.write_text(text)
        app.start()
        app.stop()

        assert findings[f"credentials {secret}"]["is_good"]
        assert f"! credentials {secret}: all users of this machine can read them\n    chmod o-r {secret}\n" in shown
        assert app.events().count("credentials.exposed") == 1
