"""PgBouncer in front of a PostgreSQL."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
from harness import wait_for
from servers import START_SECONDS, PostgreSQL, free_port, program

CONFIG = """\
[databases]
* = host=127.0.0.1 port={server} user=root

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {sessions}
server_round_robin = 1
"""
"""Debian's defaults; clients get the sessions in turns."""


class PgBouncer:
    """A pooler on a port from the kernel. It refuses to run as root, and runs as user nobody then."""

    def __init__(self, server: PostgreSQL, mode: str, *, sessions: int) -> None:
        """Start it with a pool_mode and a number of sessions, and return once it answers."""
        self._folder = Path(tempfile.mkdtemp(prefix="shipper-pgbouncer-"))
        self.port = free_port()
        config = self._folder / "pgbouncer.ini"
        config.write_text(CONFIG.format(server=server.port, port=self.port, mode=mode, sessions=sessions))
        self._folder.chmod(0o755)
        user = "nobody" if os.getuid() == 0 else None
        with (self._folder / "pgbouncer.log").open("wb") as log:
            command = [program("pgbouncer", "pgbouncer"), str(config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, user=user, cwd=self._folder)
        wait_for(self._answers, "PgBouncer", seconds=START_SECONDS)

    def close(self) -> None:
        """End it, and remove its files."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(START_SECONDS)
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        try:
            psycopg.connect(host="127.0.0.1", port=self.port, user="root", dbname="postgres").close()
        except psycopg.OperationalError:
            return False
        return True
