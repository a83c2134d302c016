"""Imports of the commands."""

import subprocess
import sys

_PACKAGES = """
import contextlib, sys
before = set(sys.modules)
from shipper.cli.commands import main
for words in (["--help"], ["admin", "--help"], ["reconcile", "--help"], ["version"], ["once", "--unknown"]):
    with contextlib.suppress(SystemExit):
        main(words)
names = {name.partition(".")[0] for name in sys.modules.keys() - before}
print(*sorted(names - sys.stdlib_module_names - {"shipper"}))
"""


def test_help_imports_nothing_slow() -> None:
    """`--help`, `version` and usage errors are quick: a command imports what it needs when it runs.

    Mutant: cli/setup.py imports config/load.py at its top.
    """
    command = [sys.executable, "-c", _PACKAGES]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    assert "No such option" in answer.stderr
    assert answer.stdout.splitlines()[-1] == "click tabulate"  # `version` prints a table
