"""Two machines, and those who look after them: a reset during a take-over, limits of PostgreSQL, a full disk."""

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import psycopg
from fault.lease_faults import LEASE_SECONDS, states_of, two_machines
from fault.pair import Machine, Pair, takes_over
from fault.running import fault
from fault.score import Score
from fault.stage import CARBON_DIES, EVENTS_A_SECOND, Stage
from harness import PATIENCE_SECONDS, shipper, wait_for
from servers import PostgreSQL

FULL_BYTES = 65_536
"""Size limit of files: above the log of a machine, below its working copy."""
RESET = "reset events --emptied --yes"
SETTINGS = {
    "statement_timeout": "100ms",
    "lock_timeout": "100ms",
    "idle_session_timeout": "100ms",
    "idle_in_transaction_session_timeout": "100ms",
    "synchronous_commit": "off",
    "default_transaction_isolation": "serializable",
    "client_encoding": "LATIN1",
}
"""Settings of a role that administrators choose."""
RIGHTS = ("ALL TABLES IN SCHEMA shipper", "TABLE shipper.state", "SCHEMA shipper")


@fault(kind="postgresql", has_lease=True, replay=CARBON_DIES, jobs=EVENTS_A_SECOND)
def reset_in_a_take_over(stage: Stage) -> list[Score]:
    """Kill the leader as an operator resets the job of an emptied table, and repeats that. Mutant: reset any job."""
    with two_machines(stage) as pair:
        pair.start()
        stage.write()
        stage.wait("delivery.finished")
        stage.empty("TRUNCATE audit_trail RESTART IDENTITY")
        stage.write()
        leader, other = pair.roles
        with _calling(leader, RESET):
            time.sleep(0.4)  # as far as the command comes by then
            leader.stop(signal.SIGKILL)
            takes_over(other, since=time.monotonic())
            leader.start()
        _call(other, RESET)
        # until rows are counted again, another reset changes nothing; then nothing is to be reset any more
        wait_for(lambda: _call(other, RESET).returncode == 1, "a reset is rejected")
        return [stage.finish("leader: kill -9 during a reset", 1)]


@fault(has_lease=True, replay=CARBON_DIES)
def state_server_limits(stage: Stage) -> list[Score]:
    """Let PostgreSQL have short time-outs, no connection left, and a role that loses its rights for a while.

    Mutant: use the time-outs of the role.
    """
    with closing(PostgreSQL()) as server, _two_machines_of_a_role(stage, server) as pair:
        pair.start()
        stage.write()
        stage.wait("delivery.finished")
        with ExitStack() as stack:
            _take_connections(server, stack)
            leader, other = pair.roles
            leader.stop(signal.SIGKILL)
            takes_over(other, since=time.monotonic())
            _take_connections(server, stack)
            leader.start()
            wait_for(lambda: "lease.failed" in leader.log.read_text(), "lease.failed")
            stage.wait("delivery.finished")
        with closing(server.connect(states_of(stage))) as administrator:
            for right in RIGHTS:
                administrator.execute(f"REVOKE ALL ON {right} FROM keeper".encode())
                time.sleep(1.5 * LEASE_SECONDS)  # as long as the fault lasts
                with stage.until("delivery.finished"):
                    administrator.execute(f"GRANT ALL ON {right} TO keeper".encode())
                assert pair.leader in pair.machines
        return [stage.finish("state's PostgreSQL: time-outs, connections, rights", 1 + len(RIGHTS))]


@fault(kind="postgresql", has_lease=True, replay=CARBON_DIES)
def working_copy_full(stage: Stage) -> list[Score]:
    """Let the leader's disk be full: the other machine takes over. Mutant: try again for ever."""
    with two_machines(stage) as pair:
        pair.start()
        stage.write()
        for _ in range(2):
            stage.wait("delivery.finished")
            leader, other = pair.roles
            assert leader._process is not None
            resource.prlimit(leader._process.pid, resource.RLIMIT_FSIZE, (FULL_BYTES, resource.RLIM_INFINITY))
            takes_over(other, since=time.monotonic())
        return [stage.finish("leader: disk full", 2)]


def _call(machine: Machine, command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with the configuration of a machine."""
    return shipper(*command.split(), "--config", str(machine.config))


@contextmanager
def _calling(machine: Machine, command: str) -> Iterator[None]:
    """Run a command during a block, and wait for its end."""
    words = [sys.executable, "-m", "shipper.cli", *command.split(), "--config", str(machine.config)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield
        process.wait(PATIENCE_SECONDS)


@contextmanager
def _two_machines_of_a_role(stage: Stage, server: PostgreSQL) -> Iterator[Pair]:
    """Give the stage two machines whose role owns nothing, and has settings of its own."""
    login = {f"root@127.0.0.1:{server.port}/": f"keeper@127.0.0.1:{server.port}/"}
    statements = ["CREATE ROLE keeper LOGIN", f"GRANT CONNECT, CREATE ON DATABASE {states_of(stage)} TO keeper"]
    statements += [f"ALTER ROLE keeper SET {name} = '{value}'" for name, value in SETTINGS.items()]
    with two_machines(stage, server, links=(login, login)) as pair:
        with closing(server.connect("postgres")) as administrator:
            for statement in statements:
                administrator.execute(statement.encode())
        yield pair


def _take_connections(server: PostgreSQL, stack: ExitStack) -> None:
    """Take all connections that are left."""
    with suppress(psycopg.OperationalError):
        while True:
            stack.enter_context(closing(server.connect("postgres")))
