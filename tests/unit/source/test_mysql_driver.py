"""Connections of PyMySQL, before they connect."""

import ssl
from typing import Any

import pytest

from shipper.source.dialects.mysql_driver import MeteredConnection
from shipper.source.limits import Meter


@pytest.mark.parametrize(
    ("options", "verify_mode", "has_authorities"),
    [({}, ssl.CERT_NONE, False), ({"ssl": ssl.create_default_context()}, ssl.CERT_REQUIRED, True)],
)
def test_authorities(options: dict[str, Any], verify_mode: ssl.VerifyMode, *, has_authorities: bool) -> None:
    """Without TLS options the server is not verified, and no authorities are loaded; a given context stays.

    Mutants: the context of PyMySQL; this one in place of a given one.
    """
    context = vars(MeteredConnection(Meter(1), defer_connect=True, **options))["ctx"]

    assert context.verify_mode == verify_mode
    assert context.check_hostname == (verify_mode == ssl.CERT_REQUIRED)
    assert bool(context.cert_store_stats()["x509"]) == has_authorities
