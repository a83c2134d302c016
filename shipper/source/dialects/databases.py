"""The databases by name."""

from collections.abc import Mapping

from shipper.source.dialects import mysql, postgresql, sqlite
from shipper.source.dialects.dialect import Dialect

DIALECTS: Mapping[str, Dialect] = {"mysql": mysql, "mariadb": mysql, "postgresql": postgresql, "sqlite": sqlite}
"""By SQLAlchemy's names."""
