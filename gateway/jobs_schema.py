"""The tables of jobs, and how SQLite keeps them."""

import aiosqlite

from fedattn.core.errors import ConfigurationError

SCHEMA_VERSION = 1
MAX_FILE_BYTES = 1 << 30
MAX_MEMORY_BYTES = 128 << 20
_PAGE_BYTES = 4096
_SCHEMA = f"""
BEGIN;
CREATE TABLE jobs(
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    status TEXT NOT NULL,
    is_background INTEGER NOT NULL,
    question TEXT,
    key TEXT,
    body_sha256 BLOB,
    created REAL NOT NULL,
    started REAL,
    ended REAL
);
CREATE INDEX jobs_of_account ON jobs(account, number);
CREATE UNIQUE INDEX jobs_by_key ON jobs(account, key) WHERE key IS NOT NULL;
CREATE TABLE events(
    job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY(job_id, number)
) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


async def prepare(connection: aiosqlite.Connection, *, in_memory: bool) -> None:
    """Make the tables unless they are there, and let nothing outlive its deletion.

    Raises:
        ConfigurationError: another version of fedattn made the file.
    """
    num_bytes = MAX_MEMORY_BYTES if in_memory else MAX_FILE_BYTES
    for pragma in (
        f"page_size = {_PAGE_BYTES}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
        "secure_delete = ON",
        "temp_store = MEMORY",
        f"max_page_count = {num_bytes // _PAGE_BYTES}",
    ):
        await connection.execute_fetchall(f"PRAGMA {pragma}")
    ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
    if version == 0:
        await connection.executescript(_SCHEMA)
    elif version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"the jobs were kept in form {version}, this gateway keeps them in form "
            f"{SCHEMA_VERSION}; remove its file of jobs, or give another folder with --state"
        )
