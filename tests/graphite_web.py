"""A private graphite-web, beside a private Carbon: what a dashboard would show."""

import importlib.util
import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

from servers import free_port

START_SECONDS = 60.0

_SETTINGS = """\
SECRET_KEY = "test"
TIME_ZONE = "UTC"
STORAGE_DIR = {root!r} + "/storage"
WHISPER_DIR = {root!r} + "/storage/whisper"
LOG_DIR = {folder!r}
CARBONLINK_HOSTS = ["127.0.0.1:{query_port}"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}
TAGDB = ""
"""
_SERVE = """\
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server
from graphite.wsgi import application

class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass

make_server("127.0.0.1", int(sys.argv[1]), application, handler_class=Quiet).serve_forever()
"""
# libcairo draws pictures, which nobody asks for
_CAIRO = "def __getattr__(name):\n    return 0\n"


class GraphiteWeb:
    """A graphite-web on a port of its own; it merges the cache of the Carbon below root with its files."""

    def __init__(self, folder: Path, *, root: Path) -> None:
        """Make its files in a folder; root is that of a Carbon that was not started yet."""
        if importlib.util.find_spec("graphite") is None:
            raise RuntimeError("graphite-web runs on Python 3.11 only: install python3.11, and run ./tests/run again")
        self.port, query_port = free_port(), free_port()
        conf = root / "conf/carbon.conf"
        conf.write_text(conf.read_text().replace("CACHE_QUERY_PORT = 0", f"CACHE_QUERY_PORT = {query_port}"))
        self._folder = folder
        settings = _SETTINGS.format(root=str(root), folder=str(folder), query_port=query_port)
        for name, text in (("settings_of_test", settings), ("cairocffi", _CAIRO), ("serve", _SERVE)):
            (folder / f"{name}.py").write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Run it, and return once it answers."""
        environment = {**os.environ, "PYTHONPATH": str(self._folder), "GRAPHITE_SETTINGS_MODULE": "settings_of_test"}
        log = self._folder / "graphite-web.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(self._folder / "serve.py"), str(self.port)],
                stdout=output,
                stderr=output,
                env=environment,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"graphite-web did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/render?format=json&target=x")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()
