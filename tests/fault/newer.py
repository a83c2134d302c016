"""Shipper of a later version, whose state has one table more."""

from shipper.state import schema

schema.MIGRATIONS = (("CREATE TABLE later (number INTEGER PRIMARY KEY) STRICT",),)
schema.prepare.__defaults__ = (schema.MIGRATIONS,)

if __name__ == "__main__":
    from shipper.cli.commands import main

    main(prog_name="shipper")
