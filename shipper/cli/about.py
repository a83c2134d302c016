"""Shell. Commands about the program itself: `schema`."""

import click

from shipper.cli.output import show_json


@click.command(short_help="The JSON Schema of the configuration.")
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors that complete keys and mark mistakes.

    An editor finds it by the first line of the file: #:schema ./shipper.schema.json
    """
    from shipper.config.schema import schema as schema_of

    show_json(schema_of())
