"""The running service, as commands find it."""

import os
from pathlib import Path

import click
from builders import MINIMAL

from shipper.cli.service import address_of


def test_configuration_in_a_pipe(tmp_path: Path) -> None:
    """`--config <(command)` is read once where no service runs. Mutant: look for its state first."""
    reader, writer = os.pipe()
    os.write(writer, f'[state]\npath = "{tmp_path}/shipper.db"\n{MINIMAL}'.encode())
    os.close(writer)
    try:
        with click.Context(click.Command("reload")):
            assert address_of(f"/dev/fd/{reader}") is None
    finally:
        os.close(reader)
