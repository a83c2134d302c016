"""Commands that need no configuration: `schema`, `alerts`, `version`, `completion`."""

import click

from shipper.cli import options
from shipper.cli.output import say, show_json, table


@click.command(short_help="JSON Schema of the configuration.")
def schema() -> None:
    """Print the JSON Schema of the configuration: editors complete keys and mark errors with it.

    An editor finds it by the first line of the configuration: #:schema ./shipper.schema.json
    """
    from shipper.config.json_schema import schema as schema_of

    show_json(schema_of())


@click.command(short_help="Alerts for Prometheus.")
@click.option("--handbook", default="", metavar="URL", help="Address of the folder with the handbook, for links to it.")
def alerts(handbook: str) -> None:
    """Print alerts as a file of rules for Prometheus, each with a link to the handbook.

    They need the metrics of the status page, which Prometheus must scrape as job `shipper`.
    """
    from shipper.status.alerts import rules

    say(rules(handbook), nl=False)


@click.command(short_help="Versions of shipper and of its libraries.")
@options.output
def version(output: str) -> None:
    """Print the versions of shipper, of Python, SQLite and OpenSSL, and of the libraries that it uses."""
    import platform
    import re
    import sqlite3
    import ssl
    from importlib.metadata import requires
    from importlib.metadata import version as version_of

    requirements = [line for line in requires("shipper") or () if "extra ==" not in line]
    libraries = sorted(re.split(r"[^\w-]", line, maxsplit=1)[0] for line in requirements)
    versions = {
        "shipper": version_of("shipper"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "openssl": ssl.OPENSSL_VERSION.removeprefix("OpenSSL ").partition(" ")[0],
        **{library: version_of(library) for library in libraries},
    }
    if output == "json":
        show_json(versions)
    else:
        say(table((), list(versions.items())))


@click.command(short_help="Completion script for your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script with which a shell completes commands, options and jobs.

    For bash: source <(shipper admin completion bash). The installer sets this up.
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    root = click.get_current_context().find_root()
    say(complete(root.command, {}, "shipper", "_SHIPPER_COMPLETE").source())
