"""TLS to MySQL: the source reads only from servers whose certificate it can verify."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trustme
from builders import query
from servers import MariaDB

from shipper.core.errors import ConfigError, SourceUnavailable
from shipper.source.access import Access, Tls
from shipper.source.database import Source
from shipper.source.inspection import Examination


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return a certificate authority for the tests."""
    return trustme.CA()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[MariaDB]:
    """Run a MariaDB with TLS, whose certificate is for `localhost`."""
    root = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(root / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(root / "server.pem")
    (root / "server.pem").chmod(0o644)  # the server runs as the user who runs the tests
    server = MariaDB(root, [f"--ssl-cert={root}/server.pem", f"--ssl-key={root}/server.pem"])
    server.make_database("app")
    yield server
    server.stop()


def access(server: MariaDB, host: str, tls: Tls, authority: Path | None) -> Examination:
    """Return a source on a server."""
    url = sa.make_url(f"mysql+pymysql://root@{host}:{server.port}/app")
    return Examination("app", Access(url, 5, tls=tls, tls_ca=None if authority is None else str(authority)))


@pytest.mark.parametrize(("host", "tls"), [("localhost", "verify-identity"), ("127.0.0.1", "verify-ca")])
def test_verified(secured: MariaDB, authority: trustme.CA, tmp_path: Path, host: str, tls: Tls) -> None:
    """A server with a certificate of our authority is read, encrypted."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with closing(access(secured, host, tls, tmp_path / "ca.pem")) as source:
        assert source.observe(query()).id == 0

        assert str(source.session().tls).startswith("TLSv1.")


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [("127.0.0.1", True), ("localhost", False)],  # another name than the certificate's; another authority
)
def test_not_verified(
    secured: MariaDB,
    authority: trustme.CA,
    tmp_path: Path,
    host: str,
    is_ours: bool,  # noqa: FBT001 - a table
) -> None:
    """A server with the wrong name or authority is not read; a hint helps. Mutant: PyMySQL's own context."""
    other = authority if is_ours else trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "ca.pem")
    with (
        closing(access(secured, host, "verify-identity", tmp_path / "ca.pem")) as source,
        pytest.raises(SourceUnavailable, match="certificate verify failed") as caught,
    ):
        source.observe(query())

    assert "tls_ca" in str(caught.value.hint)


def test_server_without_tls(mariadb: MariaDB, database: str, tmp_path: Path, authority: trustme.CA) -> None:
    """A server without TLS is not read in clear."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with (
        closing(access(mariadb, "127.0.0.1", "verify-ca", tmp_path / "ca.pem")) as source,
        pytest.raises(SourceUnavailable, match="SSL is required but the server doesn't support it") as caught,
    ):
        source.observe(query())

    assert "Switch on TLS in the server" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql+pymysql://db1.internal/app", "verify-identity"),
        ("mysql+pymysql://10.0.0.1/app", "verify-identity"),
        ("mysql+pymysql://127.0.0.1/app", "off"),
        ("mysql+pymysql://localhost/app", "off"),
        ("mysql+pymysql:///app", "off"),
        ("mysql+pymysql:///app?unix_socket=/run/mysqld/mysqld.sock", "off"),
        ("postgresql+psycopg://db1.internal/app", "verify-identity"),
        ("postgresql+psycopg:///app?host=/run/postgresql", "off"),
    ],
)
def test_default(url: str, expected: Tls) -> None:
    """Connections to other machines are verified unless `tls` says otherwise."""
    assert Access(sa.make_url(url), 5).verifies == expected


def test_no_authority(tmp_path: Path) -> None:
    """A tls_ca that is missing or not a certificate is an error of the configuration, with a hint."""
    (tmp_path / "no.pem").write_text("no certificate")
    for file in ("none.pem", "no.pem"):
        url = sa.make_url("mysql+pymysql://db1.internal/app")
        with pytest.raises(ConfigError, match=f"read tls_ca {tmp_path}/{file}") as caught:
            Source("app", Access(url, 5, tls_ca=f"{tmp_path}/{file}"))

        assert "PEM" in str(caught.value.hint)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("kind", "key"),
    [("mysql+pymysql", "tls_ca"), ("mysql+pymysql", "server_public_key"), ("postgresql+psycopg", "tls_ca")],
)
def test_files_without_an_end(kind: str, key: str, tmp_path: Path) -> None:
    """A pipe where a library reads a certificate or a key is not waited for. Mutant: open it."""
    os.mkfifo(tmp_path / "pipe")
    named: dict[str, Any] = {key: f"{tmp_path}/pipe"}
    with pytest.raises(ConfigError, match=f"read {key} .*: a pipe or a device"):
        Source("app", Access(sa.make_url(f"{kind}://db1.internal/app"), 5, **named))
