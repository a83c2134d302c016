"""Shipper of a later version, whose state has one table more."""

from shipper.state import schema

schema.VERSIONS += (("CREATE TABLE later (number INTEGER PRIMARY KEY) STRICT",),)

if __name__ == "__main__":
    from shipper.cli.commands import main

    main(prog_name="shipper")
