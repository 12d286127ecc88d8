-- Machines with a key of their own, and the tokens by which they get to be known.

CREATE TABLE identities (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL,
    host_type  TEXT NOT NULL,
    public_key TEXT NOT NULL UNIQUE,
    created    INTEGER NOT NULL,
    revoked    INTEGER,
    last_used  INTEGER
) STRICT;
CREATE UNIQUE INDEX identities_by_name ON identities (name) WHERE revoked IS NULL;

CREATE TABLE enrolments (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name      TEXT NOT NULL,
    host_type TEXT NOT NULL,
    hash      TEXT NOT NULL UNIQUE,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    revoked   INTEGER,
    used      INTEGER,
    identity  INTEGER UNIQUE REFERENCES identities (id),
    CHECK ((used IS NULL) = (identity IS NULL)),
    CHECK (used IS NULL OR revoked IS NULL)
) STRICT;
