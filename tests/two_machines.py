"""Machines with one state in a private PostgreSQL."""

import re
import socket
import subprocess
import sys
from pathlib import Path

from harness import Shipper, wait_for
from servers import PostgreSQL

from shipper.demo.carbon_cache import CarbonCache

HOST = socket.gethostname()
STATE = 'path = "{folder}/shipper.db"\ndatabase = "postgresql+psycopg://root@127.0.0.1:{port}/states"\nlease = "5s"'


class Machine(Shipper):
    """A machine of two."""

    def stand_by(self) -> None:
        """Start a daemon that does not lead, and return once it stands by."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "shipper.cli", "run", "--config", str(self.config)]
            self._process = subprocess.Popen(command, stderr=log)
        wait_for(lambda: "service.standing_by" in self.events(), "service.standing_by")

    def without_database(self) -> "Machine":
        """Let the configuration name the file alone."""
        text = re.sub("^(database|lease) = .*\n", "", self.config.read_text(), flags=re.MULTILINE)
        self.config.write_text(text)
        return self

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the body of the status page's answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.folder / "status.sock"))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body


def machine(folder: Path, states: PostgreSQL, carbon: CarbonCache) -> Machine:
    """Give a machine with the configuration of all."""
    folder.mkdir()
    app = Machine(folder, url=f"postgresql+psycopg://root@127.0.0.1:{states.port}/app", port=carbon.port)
    text = app.config.read_text()
    state = STATE.format(folder=folder, port=states.port)
    app.config.write_text(text.replace(f'path = "{folder}/shipper.db"', state))
    return app
