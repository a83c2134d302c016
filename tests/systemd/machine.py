"""A machine that boots a real systemd: a Debian tree in systemd-nspawn, without systemd on the host.

The tree of a release is made once and kept in the user's cache; each boot has a separate layer above it. It shares the
host's network, so the test's servers are at 127.0.0.1.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from secrets import token_hex
from tempfile import mkdtemp

from debian import CACHE, call, mirror
from servers import program

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "ca-certificates",
    "dbus",
    "libnss-systemd",
    "python3",
    "python3-venv",
    "sqlite3",
    "systemd",
    "systemd-sysv",
)
BOOT_SECONDS = 120.0
CHECKOUT, WHEELS = "/srv/shipper", "/srv/wheels"
_BOOT = """\
set -e
mount -t overlay overlay -o lowerdir="$1",upperdir="$2/upper",workdir="$2/work" "$2/root"
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$3"
echo $$ >"/sys/fs/cgroup/$3/cgroup.procs"
exec systemd-nspawn --quiet --boot --directory="$2/root" --register=no --keep-unit --resolv-conf=off --machine="$3"
"""
_BUILD = """\
set -e
for path in /dev /proc /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
    mount --bind "$path" "$1$path"
done
mount --bind "$2" "$1/mnt"
mount --bind "$3" "$1/media"
exec env PATH=/usr/sbin:/usr/bin chroot "$1" /mnt/deploy/install build /media
"""
"""In a chroot, which has the network of the host."""


def why_not() -> str | None:
    """Return why this user cannot boot a machine, None if they can."""
    if os.getuid() != 0:
        return "systemd-nspawn needs root"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() or None


class Machine:
    """A booted tree, with the checkout and the wheels that deploy/install needs."""

    def __init__(self, folder: Path, release: str, *, host: str | None = None) -> None:
        """Lay a layer over the tree of a release, below folder; `boot` starts it, with the name of a host."""
        self._folder = folder
        self._name = ""
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("upper", "work", "root"):
            (folder / name).mkdir()
        self._tree = _tree(release)
        if host is not None:
            self.write("/etc/hostname", f"{host}\n")

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Put a file into the machine, before it boots or while it runs."""
        if self._process is None:
            file = self._folder / "upper" / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(mode)
        else:
            self.run("mkdir", "-p", str(Path(path).parent))
            self.run("tee", path, given=text)
            self.run("chmod", f"{mode:o}", path)

    def copy(self, folder: Path, path: str) -> None:
        """Put a copy of a directory into the machine, before it boots."""
        shutil.copytree(folder, self._folder / "upper" / path.lstrip("/"))

    def check_out(self, built: Path) -> None:
        """Put the checkout and the wheels that deploy/install needs into the machine, before it boots."""
        for name in ("deploy", "config"):
            self.copy(ROOT / name, f"{CHECKOUT}/{name}")
        self.write(f"{CHECKOUT}/pyproject.toml", (ROOT / "pyproject.toml").read_text())
        self.copy(built, WHEELS)

    def install(self) -> subprocess.CompletedProcess[str]:
        """Install shipper, or upgrade it."""
        return self.run(f"{CHECKOUT}/deploy/install", "--wheels", WHEELS)

    def boot(self) -> None:
        """Boot, and return once systemd reports that all units are started."""
        self._name = f"shipper-test-{token_hex(4)}"  # of a control group, and that of an earlier boot may still exist
        command = ["unshare", "--mount", "bash", "-c", _BOOT, "boot", str(self._tree), str(self._folder), self._name]
        with (self._folder / "console.log").open("wb") as console:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        deadline = time.monotonic() + BOOT_SECONDS
        while self.run("systemctl", "is-system-running", "--wait").stdout.strip() not in {"running", "degraded"}:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"it does not boot: {(self._folder / 'console.log').read_text()[-2000:]}")
            time.sleep(0.1)

    def run(self, *command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine to its end."""
        leader = self._leader()
        if leader is None:
            return subprocess.CompletedProcess(command, 1, "", "it does not run")
        entering = ["nsenter", f"--target={leader}", "--all", "--", *command]
        return subprocess.run(
            entering, input=given, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=600
        )

    def hang(self) -> None:
        """Stop all its processes at once; to others it looks as without power: silent, with open connections."""
        self._control("cgroup.freeze")

    def cut_power(self) -> None:
        """End all its processes at once; its files stay, and it can boot again."""
        assert self._process is not None
        self._control("cgroup.kill")
        self._process.wait(20)
        self._process = None

    def close(self) -> None:
        """Switch it off, and remove its layer."""
        if self._process is not None:
            self.run("systemctl", "poweroff", "--force")
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _control(self, file: str) -> None:
        """Write to a file of its control group, where that is mounted."""
        assert self._process is not None
        command = f"echo 1 >/sys/fs/cgroup/{self._name}/{file}"
        call(["nsenter", f"--target={self._process.pid}", "--mount", "sh", "-c", command])

    def _leader(self) -> int | None:
        """Return its first process, on the host."""
        assert self._process is not None
        pid = self._process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            is_there = children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd"
        except FileNotFoundError:
            return None
        return int(children[0]) if is_there else None


def wheels(folder: Path, release: str) -> Path:
    """Build shipper and its dependencies for a release, for which a network is needed, and return their directory."""
    if release == host_release():
        call(["bash", str(ROOT / "deploy/install"), "build", str(folder)])
    else:
        tree = _tree(release)
        call(["unshare", "--mount", "bash", "-c", _BUILD, "build", str(tree), str(ROOT), str(folder)])
    return folder


def host_release() -> str:
    """Return the name of the Debian that runs here."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def _tree(suite: str) -> Path:
    """Return the tree of a release for boots; make it again when its contents have to change."""
    key = hashlib.sha256("\n".join((suite, *PACKAGES)).encode())
    cache = CACHE / "systemd" / suite
    tree = cache / key.hexdigest()[:16]
    if not tree.exists():
        shutil.rmtree(cache, ignore_errors=True)  # older trees
        cache.mkdir(parents=True)
        made = Path(mkdtemp(dir=cache))
        _make(made, suite)
        made.rename(tree)
    return tree


def _make(tree: Path, suite: str) -> None:
    """Install Debian, and in it an environment with shipper's dependencies."""
    program("systemd-nspawn", "systemd-container")
    debootstrap = program("debootstrap", "debootstrap")
    call([debootstrap, "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(tree), mirror()])
    tree.chmod(0o755)
