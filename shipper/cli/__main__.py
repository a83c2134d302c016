"""`python -m shipper.cli` is `shipper`."""

from shipper.cli import main

main(prog_name="shipper")
