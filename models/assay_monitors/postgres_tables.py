"""The tables of a PostgreSQL database of runs, in a schema of their own."""

from typing import Any

import psycopg
from psycopg import errors

from assay_monitors.database import TablesError

VERSION = 1
SCHEMA = "assay"
ENCODINGS = ("UTF8", "SQL_ASCII")
"""Those of databases that store any text: the second one stores the bytes that it is sent."""
LOCK = f"SELECT pg_advisory_xact_lock(hashtext('{SCHEMA}.runs')), pg_current_xact_id()::text"
MAKE_SCHEMA = f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"
# Names are compared byte by byte, as SQLite compares them, whatever the database's locale is.
TABLES = f"""
CREATE TABLE IF NOT EXISTS {SCHEMA}.version (version INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS {SCHEMA}.runs (
    run TEXT COLLATE "C" PRIMARY KEY,
    first_seen DOUBLE PRECISION NOT NULL, last_seen DOUBLE PRECISION NOT NULL);
CREATE TABLE IF NOT EXISTS {SCHEMA}.windows (
    run TEXT COLLATE "C" NOT NULL, model TEXT COLLATE "C" NOT NULL,
    split TEXT COLLATE "C" NOT NULL, step BIGINT NOT NULL,
    summary BYTEA NOT NULL, PRIMARY KEY (run, model, split, step));
CREATE TABLE IF NOT EXISTS {SCHEMA}.gold (
    run TEXT COLLATE "C" NOT NULL, source TEXT COLLATE "C" NOT NULL, step BIGINT NOT NULL,
    point TEXT NOT NULL, PRIMARY KEY (run, source, step));
CREATE TABLE IF NOT EXISTS {SCHEMA}.details (
    run TEXT COLLATE "C" PRIMARY KEY, note TEXT, last_step BIGINT, owner TEXT,
    pinned INTEGER NOT NULL DEFAULT 0, step_named_at DOUBLE PRECISION);
CREATE TABLE IF NOT EXISTS {SCHEMA}.damaged (
    run TEXT COLLATE "C" NOT NULL, kind TEXT NOT NULL, name TEXT, split TEXT, step BIGINT,
    content BYTEA);
CREATE TABLE IF NOT EXISTS {SCHEMA}.alerts (
    run TEXT COLLATE "C" PRIMARY KEY, mark BIGINT NOT NULL, firing TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS {SCHEMA}.undelivered (
    id TEXT PRIMARY KEY, change TEXT NOT NULL, until DOUBLE PRECISION NOT NULL);
CREATE INDEX IF NOT EXISTS damaged_runs ON {SCHEMA}.damaged (run);
"""
SET_VERSION = f"INSERT INTO {SCHEMA}.version VALUES ({VERSION}) ON CONFLICT DO NOTHING"  # noqa: S608


def prepare_tables(connection: "psycopg.Connection[Any]") -> None:
    """Make the tables if they are missing, and check their version.

    Raises:
        TablesError: they cannot be made, or are of another version.
    """
    _check_encoding(connection)
    (schema, table) = connection.execute(
        "SELECT to_regnamespace(%s), to_regclass(%s)", [SCHEMA, f"{SCHEMA}.version"]
    ).fetchone() or (None, None)
    if table is None:
        with connection.transaction():
            _make_tables(connection, has_schema=schema is not None)
    versions = connection.execute(f"SELECT version FROM {SCHEMA}.version").fetchall()  # noqa: S608
    if versions != [(VERSION,)]:
        found = ", ".join(str(version) for (version,) in versions)
        raise TablesError(f"the tables have version {found or 'none'}, this Assay reads {VERSION}")


def _check_encoding(connection: "psycopg.Connection[Any]") -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ENCODINGS:
        raise TablesError(
            f"the database has the encoding {encoding}, in which not every name can be written: "
            "make it with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def _make_tables(connection: "psycopg.Connection[Any]", *, has_schema: bool) -> None:
    try:
        connection.execute(LOCK.encode())
        if not has_schema:
            connection.execute(MAKE_SCHEMA.encode())
        connection.execute(TABLES.encode())
        connection.execute(SET_VERSION.encode())
    except errors.InsufficientPrivilege as error:
        user = connection.info.user
        raise TablesError(
            f"the user {user} may not make the schema {SCHEMA}. The owner of the database can: "
            f'CREATE SCHEMA {SCHEMA} AUTHORIZATION "{user}";'
        ) from error
