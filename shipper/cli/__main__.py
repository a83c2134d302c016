"""`python -m shipper.cli` is `shipper`."""

from shipper.cli.commands import main

main(prog_name="shipper")
