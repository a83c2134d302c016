"""The daemon and the commands beside rogue databases: each costs its own job, and nothing else."""

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from harness import Shipper, wait_for
from hostile.databases import SERVERS, Case, Real, cases_of, real
from hostile.rogue import Rogue, passing
from hostile.rogue_graphite import Graphite
from hostile.sink import Sink

Rogues = dict[str, Rogue]

MOST_LINE = 3000
MOST_MIB = 240
"""Memory of the daemon, below the unit's limit of 256 MiB."""
JOB = """
[source.{name}]
url = "{url}"
timeout = "1s"
connections = 1

[job.{name}]
source = "{name}"
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
name = "{name}.{{action}}.{{measure}}"
every = "{every}"
"""


@contextmanager
def shipping(folder: Path, server: Real, cases: list[Case], *, every: str) -> Iterator[tuple[Shipper, Sink, Rogues]]:
    """Configure a job on the real server, and one for each case; run the rogues, and stop all at the end."""
    rogues = {re.sub(r"\W", "_", case.name): Rogue(case.treat) for case in cases}
    urls = {name: server.url.set(port=rogue.port) for name, rogue in rogues.items()} | {"well": server.url}
    jobs = "".join(JOB.format(name=name, url=url, every=every) for name, url in urls.items())
    with closing(Sink()) as sink:
        program = Shipper(folder, url=str(server.url), port=sink.port, jobs=jobs)
        try:
            yield program, sink, rogues
        finally:
            program.stop()
            for rogue in rogues.values():
                rogue.close()


def check_text(text: str) -> None:
    """Check that an operator, a terminal and a log get only what we wrote."""
    assert "Traceback" not in text
    assert [line for line in text.splitlines() if not line.isprintable() or len(line) > MOST_LINE] == []


def memory_of(program: Shipper) -> int:
    """Return the largest memory that the daemon has had, in MiB."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024


def failed(program: Shipper) -> set[str]:
    """Return the sources of whose failures the log tells."""
    lines = [line for line in program.text().splitlines() if "event=observation.failed" in line]
    return {found[1] for line in lines if (found := re.search(r"source=(\w+)", line))}


@pytest.mark.timeout(600)  # it waits twice, and dozens of sources need the processor
@pytest.mark.parametrize("server", SERVERS)
def test_daemon(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Beside dozens of rogues a job goes on; each of theirs is failing, never stopped, and recovers without a restart.

    Mutants: let a driver's error, or a value that is none, be a bug; no limit of time.
    """
    database = real(request, server)
    cases = [case for case in cases_of(server, database.port) if not case.is_large]
    with shipping(tmp_path, database, cases, every="6s") as (program, sink, rogues):
        program.start()
        wait_for(lambda: failed(program) == rogues.keys(), "the failures", seconds=240)
        insert(request, server, 3)
        wait_for(lambda: sink.sums().get("audit.well.login.count") == 3, "rows of the job that is well")
        status = program.call("status", "-o", "json")
        report = json.loads(status.stdout)
        states = {job["job"]: job["state"] for job in report["jobs"]}

        assert status.returncode == 1
        assert states.pop("well") == "ok"
        assert {name for name, state in states.items() if state not in {"failing", "overdue"}} == set()
        shown = program.call("status")
        check_text(shown.stdout + shown.stderr)
        assert memory_of(program) < MOST_MIB

        for rogue in rogues.values():
            rogue.become(passing(database.port))
        expected = dict.fromkeys((f"audit.{name}.login.count" for name in (*rogues, "well")), 3)
        wait_for(lambda: sink.sums() == expected, "rows of all jobs", seconds=240)
        check_text(program.text())
        assert program.stop() == 0


@pytest.mark.parametrize("server", SERVERS)
def test_memory(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Answers without an end, one kind after the other, need less memory than the unit has.

    Mutants: no limit of bytes; none of rows; a failure that keeps its driver's error, with the answer in it.
    """
    database = real(request, server)
    first, *others = [case for case in cases_of(server, database.port) if case.is_large]
    with shipping(tmp_path, database, [first], every="1s") as (program, sink, rogues):
        insert(request, server, 3)
        program.start()
        (rogue,) = rogues.values()
        for case in (first, *others):
            rogue.become(case.treat)
            seen = rogue.connections
            wait_for(lambda seen=seen: rogue.connections > seen + 1, case.name)  # type: ignore[misc] # two attempts
        rogue.become(passing(database.port))
        wait_for(lambda: len(sink.sums()) == 2, "rows of both jobs")

        assert memory_of(program) < MOST_MIB
        check_text(program.text())


@pytest.mark.parametrize("server", SERVERS)
def test_commands(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Commands end with their exit code, and with lines that a terminal can show.

    Mutant: print what a server says.
    """
    database = real(request, server)
    cases = [case for case in cases_of(server, database.port) if not case.is_slow and not case.is_large]
    insert(request, server, 3)
    with shipping(tmp_path, database, cases, every="1s") as (program, sink, rogues):
        check, once = program.call("check"), program.call("once")
        assert {line.split(":")[0] for line in check.stdout.splitlines() if line.startswith("✗")} >= {
            f"✗ source {name}" for name in rogues if name.startswith("login")
        }
        assert sink.sums() == {"audit.well.login.count": 3}
        for one in (check, once):
            assert one.returncode == 1
            check_text(one.stdout + one.stderr)


CODES = {
    "once": 1,
    "preview": 1,
    "reset --emptied --yes": 1,
    "backfill --from 2h --until now --yes": 1,
    "reconcile": 1,
    "admin seek --to end --yes": 1,
    "history": 0,
}
"""Exit codes of commands about a job that has begun, and whose database is a rogue now; history asks the state only."""
ANSWERS = ("escapes", "garbage", "drip", "no utf-8", "long number", "cut row", "endless rows", "huge error")


@pytest.mark.parametrize("server", SERVERS)
def test_commands_of_a_job(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Commands about a job that has begun end in the same way, and change nothing. Mutant: print what a server says."""
    database, graphite = real(request, server), Graphite()
    answers = [case for case in cases_of(server, database.port) if case.name.removeprefix("statement ") in ANSWERS]
    insert(request, server, 3)
    with (
        shipping(tmp_path, database, answers[:1], every="1s") as (program, sink, rogues),
        closing(Rogue(graphite.web)) as web,
    ):
        text = program.config.read_text()
        program.config.write_text(text.replace("[graphite]", f'[graphite]\nrender_url = "http://127.0.0.1:{web.port}"'))
        ((name, rogue),) = rogues.items()
        rogue.become(passing(database.port))
        assert program.call("once", name).returncode == 0
        for (command, code), answer in zip(CODES.items(), cycle(answers), strict=False):
            rogue.become(answer.treat)
            ended = program.call(command, name)
            assert ended.returncode == code, (command, answer.name, ended.stderr)
            check_text(ended.stdout + ended.stderr)

        rogue.become(passing(database.port))
        assert program.call("once", name).returncode == 0
        assert sink.sums() == {f"audit.{name}.login.count": 3}


def insert(request: pytest.FixtureRequest, server: str, rows: int) -> None:
    """Add rows to the real table, committed."""
    now = "UTC_TIMESTAMP(6)" if server == "mariadb_server" else "CURRENT_TIMESTAMP"
    with request.getfixturevalue(server).connect("app") as connection, connection.cursor() as cursor:
        for _ in range(rows):
            cursor.execute(f"INSERT INTO audit_trail (created_at, action) VALUES ({now}, 'login')")
