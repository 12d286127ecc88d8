-- Machines lent to people. A lease is an attempt's or a loan's.

CREATE TABLE loans (
    id        INTEGER PRIMARY KEY,
    name      TEXT NOT NULL,
    owner     TEXT NOT NULL,
    builder   TEXT NOT NULL,
    host_type TEXT NOT NULL,
    machine   TEXT NOT NULL,
    started   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    return_by TEXT,
    ended     INTEGER,
    why       TEXT NOT NULL,
    CHECK ((ended IS NULL) = (why = ''))
) STRICT;
CREATE UNIQUE INDEX loans_open ON loans (name) WHERE ended IS NULL;
CREATE INDEX loans_by_name ON loans (name, id);

CREATE TABLE new_leases (
    machine TEXT PRIMARY KEY,
    build   INTEGER UNIQUE,
    n       INTEGER,
    loan    INTEGER UNIQUE REFERENCES loans (id),
    taken   INTEGER NOT NULL,
    CHECK ((build IS NULL) <> (loan IS NULL)),
    CHECK ((build IS NULL) = (n IS NULL)),
    FOREIGN KEY (build, n) REFERENCES attempts (build, n)
) STRICT;
INSERT INTO new_leases (machine, build, n, taken) SELECT machine, build, n, taken FROM leases;
DROP TABLE leases;
ALTER TABLE new_leases RENAME TO leases;
