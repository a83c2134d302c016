"""Commands with a state in PostgreSQL: beside the leader, without any service, and while another machine leads."""

import json
import re
import signal
import socket
import subprocess
import sys

from harness import wait_for
from servers import PostgreSQL
from two_machines import HOST, Machine

EX_TEMPFAIL, EX_CONFIG = 75, 78
RUN = ("-m", "shipper.cli", "run", "--config")


def test_reads_beside_the_leader(first: Machine, second: Machine) -> None:
    """History, preview, backup and status work on a machine without a service as on the leader's."""
    first.start()
    wait_for(lambda: "delivery.finished" in first.events(), "a delivery")
    histories = [json.loads(one.call("history events -o json").stdout) for one in (first, second)]
    assert histories[0]["commits"] == histories[1]["commits"] != []

    for one in (first, second):
        assert one.call("preview events").returncode == 0
        done = one.call("backup", str(one.folder / "copy.db"))
        assert (done.returncode, done.stderr) == (0, "")
    assert not (second.folder / "shipper.db").exists()
    status = second.call("status")
    assert status.returncode == 3
    assert f"leader: {HOST} since " in status.stdout
    assert "; its configuration differs from this machine's" in status.stdout  # the files have other paths
    assert "events" in status.stdout

    first.stop(signal.SIGKILL)
    wait_for(lambda: "leader: none; the last one led since " in second.call("status").stdout, "the end of its session")
    assert first.call("history events -o json").stdout == second.call("history events -o json").stdout


def test_stand_by(first: Machine, second: Machine) -> None:
    """A machine that stands by is healthy and not ready, says who leads, and rejects operations."""
    first.start()
    second.stand_by()
    verdict = f"stands by; {HOST} leads since"
    wait_for(lambda: verdict in second.call("status").stdout, verdict)
    status = second.call("status")
    assert (status.returncode, status.stderr) == (0, "")
    assert f"leader: {HOST} since " in status.stdout
    assert re.search("^state database +postgresql", status.stdout, re.MULTILINE)
    for path, code in (("/livez", 200), ("/readyz", 503), ("/metrics", 200), ("/", 200), ("/status", 200)):
        assert (path, second.get(path)[0]) == (path, code)
    assert verdict in second.get("/readyz")[1]
    for command in ("pause events", "admin seek events --to end --yes", "admin audit"):
        done = second.call(command)
        assert (command, done.returncode) == (command, 1)
        assert f"this machine stands by; {HOST} works with the state" in done.stderr

    wait_for(
        lambda: f"stands by: {HOST}; its configuration differs" in first.call("status").stdout, "the other machine"
    )
    status = first.call("status")
    assert (status.returncode, first.get("/readyz")[0]) == (0, 200)
    assert f"leader: {HOST} (this process) since " in status.stdout
    assert re.search("^state database +postgresql", status.stdout, re.MULTILINE)
    assert f"healthy; configuration differs on {HOST}" in status.stdout
    numbers = first.get("/metrics")[1]
    assert "\nshipper_leader 1\n" in numbers
    assert re.search("\nshipper_state_push_seconds 0.0[0-9]*[1-9]", numbers)


def test_stand_by_without_credentials(first: Machine, second: Machine) -> None:
    """A machine that could not work does not stand by: it would end after the take-over, and then none leads."""
    first.start()
    text = second.config.read_text()
    source = 'url = "mysql+pymysql://127.0.0.1:9/app"\ncredentials = "lost.cnf"'
    second.config.write_text(re.sub('(?<=\\[source.app]\n)url = ".*"', source, text))
    with second.log.open("wb") as log:
        process = subprocess.Popen([sys.executable, *RUN, str(second.config)], stderr=log)
    try:
        assert process.wait(30) == EX_CONFIG
    finally:
        process.kill()

    assert 'read credentials "lost.cnf" of source "app": there is no file ' in second.log.read_text()
    assert "service.standing_by" not in second.events()


def test_stand_by_without_a_database(second: Machine) -> None:
    """A machine that does not know the leader says so. Mutant: say that another machine works with the state."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        text = second.config.read_text()
        second.config.write_text(re.sub(":[0-9]+/states", f":{closed.getsockname()[1]}/states", text))
        second.stand_by()
        done = second.call("pause events")

    assert done.returncode == 1
    assert "this machine stands by, and knows no leader" in done.stderr
    assert "when a machine leads" in done.stderr


def test_operations_without_a_service(first: Machine, second: Machine) -> None:
    """A command works with the state where no machine leads, and names the leader where one does.

    Mutant: open the file at `path` as the state.
    """
    assert second.call("once").returncode == 0
    assert second.call("pause events").stdout == "events: paused\n"
    assert first.call("resume events").stdout == "events: continues at its next tick\n"
    assert not (second.folder / "shipper.db").exists()
    first.start()

    for command in ("once", "pause events", "admin seek events --to end --yes", "restore COPY --yes"):
        if command.startswith("restore"):
            assert second.call("backup", str(second.folder / "copy.db")).returncode == 0
        done = second.call(command.replace("COPY", str(second.folder / "copy.db")))
        assert (command, done.returncode) == (command, 1)
        assert f"the shipper on {HOST} works with it" in done.stderr
        assert "hint: Stop the service on all machines first" in done.stderr  # this is the leader's machine


def test_move_there_and_back(first: Machine, second: Machine) -> None:
    """A state moves into the database and back; the place that it left is never used again. Mutant: mark nothing."""
    text = first.config.read_text()
    first.without_database()
    assert first.call("once").returncode == 0
    history = first.call("history events").stdout
    assert "COMMITTED" in history

    first.config.write_text(text)
    refused = first.call("once")
    assert "this file is itself a state" in refused.stderr
    moved = first.call("admin state move --to database --yes")
    assert (moved.returncode, moved.stderr) == (0, "")
    assert first.call("history events").stdout == second.call("history events").stdout == history
    (kept,) = first.folder.glob("shipper.db.moved-*")
    kept.rename(first.folder / "shipper.db")
    refused = first.without_database().call("once")
    assert (refused.returncode, "it was moved into a database" in refused.stderr) == (1, True)
    first.config.write_text(text)
    again = first.call("admin state move --to database --yes")
    assert (again.returncode, "it was moved into a database already" in again.stderr) == (78, True)
    assert first.call("once").returncode == 0

    moved = second.call("admin state move --to path --yes")
    assert (moved.returncode, moved.stderr) == (0, "")
    place = f"it was moved to {HOST}:{second.folder}/shipper.db"
    for one, command in ((first, "once"), (first, "history events"), (first, "run")):
        refused = one.call(command)
        assert (refused.returncode, place in refused.stderr) == (78, True), refused.stderr
    assert "this file is itself a state" in second.call("once").stderr
    assert second.without_database().call("history events").stdout.startswith(history.rstrip())
    assert second.call("once").returncode == 0


def test_restore_into_a_database(first: Machine, second: Machine) -> None:
    """A copy takes the place of the state in the database, which is kept; a copy of a file does, too."""
    assert first.call("once").returncode == 0
    copy = first.folder / "copy.db"
    assert first.call("backup", str(copy)).returncode == 0
    assert first.call("pause events").returncode == 0
    assert "paused since" in second.call("status").stdout

    done = first.call("restore --yes", str(copy))
    assert (done.returncode, done.stderr) == (0, "")
    assert "events: counted up to 5" in done.stdout
    assert "paused since" not in second.call("status").stdout
    (kept,) = first.folder.glob("shipper.db.replaced-*")
    assert second.call("restore --yes", str(kept)).returncode == 0
    assert "paused since" in first.call("status").stdout


def test_lease_lost_while_loading(first: Machine, states: PostgreSQL) -> None:
    """A service that loses the lease as it loads the state logs that, as at any other time. Mutant: only print it."""
    assert first.call("once").returncode == 0
    with states.connect("states") as connection, connection.transaction():
        connection.execute("LOCK TABLE shipper.state")
        first.launch()
        assert first.wait() == EX_TEMPFAIL

    assert first.events()[-1] == "lease.lost"
    assert "load the state in the state's database" in first.text()
    assert "error: " not in first.text()
