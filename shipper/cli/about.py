"""Commands about the program itself: `schema`, `version`, `completion`."""

import click

from shipper.cli import options
from shipper.cli.output import show_json, show_table


@click.command(short_help="The JSON Schema of the configuration.")
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors that complete keys and mark mistakes.

    An editor finds it by the first line of the file: #:schema ./shipper.schema.json
    """
    from shipper.config.json_schema import schema as schema_of

    show_json(schema_of())


@click.command(short_help="The versions of shipper and of what it stands on.")
@options.output
def version(output: str) -> None:
    """Print the versions of shipper, of Python, SQLite and OpenSSL, and of the libraries that it uses."""
    import platform
    import re
    import sqlite3
    import ssl
    from importlib.metadata import requires
    from importlib.metadata import version as version_of

    needed = [line for line in requires("shipper") or () if "extra ==" not in line]
    libraries = sorted(re.split(r"[^\w-]", line, maxsplit=1)[0] for line in needed)
    found = {
        "shipper": version_of("shipper"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "openssl": ssl.OPENSSL_VERSION.removeprefix("OpenSSL ").partition(" ")[0],
        **{library: version_of(library) for library in libraries},
    }
    if output == "json":
        show_json(found)
    else:
        show_table((), list(found.items()))


@click.command(short_help="Completion for your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what lets a shell complete commands, options and jobs.

    bash: source <(shipper admin completion bash); where shipper is installed as a service it is there already.
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    root = click.get_current_context().find_root()
    click.echo(complete(root.command, {}, "shipper", "_SHIPPER_COMPLETE").source())
