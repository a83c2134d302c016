"""Debian's packages for the tests: programs of another release, unpacked into a cache instead of installed."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shipper-tests"
_APT = """\
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
APT::Sandbox::User "";
Acquire::Check-Valid-Until "false";
Acquire::http::Timeout "15";
Acquire::Retries "1";
"""
_SOURCE = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {suite} main\n"
_PROGRAM = """\
#!/bin/sh
R=$(dirname "$(realpath "$0")")/root
exec "$R/{loader}" --library-path "$R/{libraries}" "$R/{program}" "$@"
"""


class UnavailableError(RuntimeError):
    """A package that cannot be had here."""


def mirror() -> str:
    """Return the address from which the host gets Debian's packages."""
    listed = call(["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"]).splitlines()
    found = [address for origin, _, address in (line.partition(" ") for line in listed) if origin == "Debian"]
    main = [address for address in found if "security" not in address]
    return main[0] if main else "http://deb.debian.org/debian"


def unpacked(package: str, program: str, suite: str) -> str:
    """Return a program of a release's package; a script that runs it with the loader and libraries of that release.

    It is downloaded once; the cache has a folder `PACKAGE-VERSION` for it.
    """

    def make(folder: Path) -> str:
        version = _unpack(folder, package, suite, with_needs=True)
        _write_script(folder / Path(program).name, program)
        return version

    return str(_kept(package, Path(program).name, make))


def unpacked_file(package: str, file: str, suite: str) -> Path:
    """Return a file of a release's package; nothing that the package needs is unpacked. The cache keeps it, too."""
    return _kept(f"{package}-{suite}", f"root/{file}", lambda folder: _unpack(folder, package, suite, with_needs=False))


def _kept(name: str, wanted: str, make: Callable[[Path], str]) -> Path:
    """Return a file of the cache; make its folder if need be, with a function that returns the version."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes test
        for made in sorted(CACHE.glob(f"{name}-*/{wanted}"), reverse=True):
            return made
        folder = Path(mkdtemp(dir=CACHE))
        try:
            version = make(folder)
            if not (folder / wanted).exists():
                raise UnavailableError(f"{name} {version} has no {wanted}")
            return folder.rename(CACHE / f"{name}-{version}") / wanted
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # only if it failed


def call(command: Sequence[str], cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Run a command, and return its output."""
    try:
        variables = {**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=variables)
    except FileNotFoundError:
        raise UnavailableError(f"{command[0]} is not there") from None
    if done.returncode:
        raise UnavailableError(f"{' '.join(command[:4])}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def _unpack(folder: Path, package: str, suite: str, *, with_needs: bool) -> str:
    """Unpack a package, and perhaps all that it needs, into folder/root; return its version."""
    with TemporaryDirectory() as made:
        apt = Path(made)
        archives = apt / "archives"
        for made_folder in (apt / "lists/partial", archives / "partial"):
            made_folder.mkdir(parents=True)
        (apt / "status").touch()
        (apt / "sources.list").write_text(_SOURCE.format(mirror=mirror(), suite=suite))
        (apt / "apt.conf").write_text(_APT.format(folder=apt))
        environment = {"APT_CONFIG": str(apt / "apt.conf")}
        call(["apt-get", "update", "-qq", "--error-on=any"], archives, environment)
        install = ["install", "-y", "--download-only", "--no-install-recommends"]
        call(["apt-get", "-qq", *(install if with_needs else ["download"]), package], archives, environment)
        for archive in sorted(archives.glob("*.deb")):
            call(["dpkg-deb", "--extract", str(archive), str(folder / "root")])
        (archive,) = archives.glob(f"{package}_*.deb")
        return call(["dpkg-deb", "--field", str(archive), "Version"]).strip()


def _write_script(script: Path, program: str) -> None:
    root = script.parent / "root"
    loaders = sorted(root.glob("usr/lib/*/ld-linux*.so.*"))
    if not loaders:
        raise UnavailableError(f"{program} has no loader")
    loader = loaders[0].relative_to(root)
    script.write_text(_PROGRAM.format(loader=loader, libraries=loader.parent, program=program))
    script.chmod(0o755)
