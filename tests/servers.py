"""Private servers of the tests' own, on ports from the kernel; ended by pid."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pymysql

START_SECONDS = 60.0
SCHEMA = """
    CREATE TABLE audit_trail (
        id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
        created_at DATETIME(6) NULL,
        end_date DATETIME(6) NULL,
        action VARCHAR(64),
        outcome VARCHAR(16),
        duration_ms INT
    )"""
"""The example table; created_at may be NULL, to test rows without a time."""


def program(name: str, package: str) -> str:
    """Find a server's program, or fail with the remedy."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError(f"{name} is not installed: run ./tests/run, or apt-get install {package}")
    return found


class MariaDB:
    """A MariaDB below a directory."""

    def __init__(self, root: Path) -> None:
        """Make its data directory, and start it."""
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as chosen:
            chosen.bind(("127.0.0.1", 0))
            self.port: int = chosen.getsockname()[1]
        subprocess.run(
            [
                program("mariadb-install-db", "mariadb-server-core"),
                "--no-defaults",
                f"--datadir={root}/data",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            check=True,
            capture_output=True,
        )
        self.start()

    def start(self) -> None:
        """Run it, and return once it answers."""
        command = [
            program("mariadbd", "mariadb-server-core"),
            "--no-defaults",
            f"--datadir={self._root}/data",
            f"--socket={self._root}/mysqld.sock",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--innodb-buffer-pool-size=256M",
            "--innodb-flush-log-at-trx-commit=2",
            "--skip-name-resolve",
        ]
        if os.getuid() == 0:
            command.append("--user=root")
        with (self._root / "mariadbd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect().close()
            except pymysql.err.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"mariadbd did not start: {self._root}/mariadbd.log") from None
                time.sleep(0.05)
            else:
                return

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, and wait for that."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)
            self._process = None

    def connect(self, database: str | None = None) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
        """Open a session as root, autocommit, in UTC."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            database=database,
            charset="utf8mb4",
            autocommit=True,
            init_command="SET time_zone = '+00:00'",
        )

    def make_database(self, name: str) -> str:
        """Make an empty database with the example table; return its SQLAlchemy URL."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
            cursor.execute(f"USE {name}")
            cursor.execute(SCHEMA)
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{name}"
