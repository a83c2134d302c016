"""A private graphite-web, beside a private Carbon: what a dashboard would show; with its pages, if need be."""

import importlib.util
import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

from servers import free_port, held_port, program

START_SECONDS = 120.0

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
# dashboards and tags are in its database; pages have scripts, styles and pictures, asked for side by side
_PAGES_SETTINGS = """
WEBAPP_DIR = {folder!r} + "/webapp"
DASHBOARD_CONF = {conf!r} + "/dashboard.conf.example"
CARBONLINK_HOSTS = []
DATABASES["default"]["NAME"] = {folder!r} + "/graphite.db"
TAGDB = "graphite.tags.localdatabase.LocalDatabaseTagDB"
"""
_SERVE = """\
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from graphite.wsgi import application

class Server(WSGIServer):
    pass

if "pages" in sys.argv:
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)
    application = StaticFilesHandler(application)

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass

make_server("127.0.0.1", int(sys.argv[1]), application, Server, Quiet).serve_forever()
"""
# libcairo draws pictures, which nobody asks for
_CAIRO = "def __getattr__(name):\n    return 0\n"


_PACKAGED = (f"{sys.prefix}/webapp/content", f"{sys.prefix}/conf")
_DEBIAN = ("/usr/share/graphite-web/static", "/usr/share/doc/graphite-web/examples")
"""Folders of what pages consist of, and of examples of configuration."""


def _python_of_debian() -> str:
    """Return the Python of Debian's graphite-web; that of the package index runs on Python 3.11 only."""
    program("graphite-manage", "graphite-web")
    return "/usr/bin/python3"


class GraphiteWeb:
    """A graphite-web on a port of its own; it merges the cache of the Carbon below root with its files."""

    def __init__(self, folder: Path, *, root: Path, has_pages: bool = False) -> None:
        """Make its files in a folder; root is that of a Carbon that was not started yet.

        With pages, and dashboards, it shows the files below root and asks no Carbon.
        """
        is_packaged = importlib.util.find_spec("graphite") is not None
        self._python = sys.executable if is_packaged else _python_of_debian()
        self.port, query_port = free_port(), held_port()
        self._folder, self._options = folder, ["pages"] if has_pages else []
        settings = _SETTINGS.format(root=str(root), folder=str(folder), query_port=query_port)
        modules = {"serve": _SERVE, "settings_of_test": settings, "cairocffi": _CAIRO}
        if has_pages:
            content, examples = _PACKAGED if is_packaged else _DEBIAN
            (folder / "webapp").mkdir()
            (folder / "webapp/content").symlink_to(content)
            modules["settings_of_test"] += _PAGES_SETTINGS.format(conf=examples, folder=str(folder))
            del modules["cairocffi"]
        else:
            conf = root / "conf/carbon.conf"
            conf.write_text(conf.read_text().replace("CACHE_QUERY_PORT = 0", f"CACHE_QUERY_PORT = {query_port}"))
        for name, text in modules.items():
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
                [self._python, str(self._folder / "serve.py"), str(self.port), *self._options],
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
