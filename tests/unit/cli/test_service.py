"""The running service, as commands find it."""

import os
from pathlib import Path

import click

from shipper.cli.service import address_of

TEXT = """\
[state]
path = "{folder}/shipper.db"
[graphite]
retentions = "1m:1d"
[source.app]
url = "sqlite:////app.db"
[job.events]
table = "audit_trail"
id = "id"
name = "events.{{measure}}"
"""


def test_configuration_in_a_pipe(tmp_path: Path) -> None:
    """`--config <(command)` is read once where no service runs. Mutant: look for its state first."""
    reader, writer = os.pipe()
    os.write(writer, TEXT.format(folder=tmp_path).encode())
    os.close(writer)
    try:
        with click.Context(click.Command("reload")):
            assert address_of(f"/dev/fd/{reader}") is None
    finally:
        os.close(reader)
