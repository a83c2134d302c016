"""Runs the tests in another Debian: a tree in the cache, entered with chroot.

`./tests/run matrix` runs everything but tests/systemd, also with `--require-mysql`; other arguments go to ./tests/run
there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from debian import CACHE, UnavailableError, call, mirror
from servers import program

SUITE = "trixie"
"""Debian 13: Python 3.13, MariaDB 11.8, PostgreSQL 17."""
PACKAGES = ("ca-certificates", "python3-venv")
ROOT = Path(__file__).parents[1]
CHECKOUT = "srv/shipper"
COPIED = ("etc/ssl/certs/ca-certificates.crt", "etc/resolv.conf", "etc/hosts")
NO_SERVICES = "#!/bin/sh\nexit 101\n"
"""Policy by which packages start no services."""
EVERYTHING = ("tests", "--ignore=tests/systemd", "--numprocesses=3", "--dist=loadfile", "--no-loadscope-reorder")
ENTER = """\
set -e
mount --bind "$1" "$1" # ip netns changes how the root is mounted
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
cd "$1"
exec chroot "$1" /bin/sh -c 'cd "$0" && exec ./tests/run "$@"' "/$2" "${@:3}"
"""


def main() -> int:
    """Run the tests; return the exit code of ./tests/run."""
    if os.getuid() != 0:
        raise SystemExit("./tests/run matrix: chroot needs root")
    tree = _tree()
    _copy_checkout(tree / CHECKOUT)
    for name in COPIED:
        shutil.copyfile(f"/{name}", tree / name)
    # the processes of a run end with it, and its mounts are seen by it alone
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", ENTER, "matrix", str(tree)]
    environment = {**os.environ, "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    given = sys.argv[1:]
    chosen = [*EVERYTHING, *given] if given in ([], ["--require-mysql"]) else given
    return subprocess.run([*isolated, CHECKOUT, *chosen], check=False, env=environment).returncode


def _tree() -> Path:
    """Return the tree, which keeps what was installed there; make it if need be."""
    tree, made = CACHE / f"matrix-{SUITE}", CACHE / f"matrix-{SUITE}.new"
    if tree.exists():
        return tree
    print(f"installing Debian {SUITE} into {tree}", flush=True)  # noqa: T201 - it takes minutes
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    debootstrap = program("debootstrap", "debootstrap")
    call([debootstrap, "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(made), mirror()])
    policy = made / "usr/sbin/policy-rc.d"
    policy.write_text(NO_SERVICES)
    policy.chmod(0o755)
    return made.rename(tree)


def _copy_checkout(target: Path) -> None:
    """Copy the files that git knows; the environment of the last run stays."""
    for old in target.glob("[!.]*"):
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    for name in call(["git", "-C", str(ROOT), "ls-files", "-z"]).split("\0")[:-1]:
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (UnavailableError, RuntimeError) as error:
        sys.exit(f"./tests/run matrix: {error}")
