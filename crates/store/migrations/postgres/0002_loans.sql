-- Machines lent to people. A lease is an attempt's or a loan's.

CREATE TABLE loans (
    id        BIGINT PRIMARY KEY,
    name      TEXT COLLATE "C" NOT NULL,
    owner     TEXT COLLATE "C" NOT NULL,
    builder   TEXT COLLATE "C" NOT NULL,
    host_type TEXT COLLATE "C" NOT NULL,
    machine   TEXT COLLATE "C" NOT NULL,
    started   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    return_by TEXT COLLATE "C",
    ended     BIGINT,
    why       TEXT COLLATE "C" NOT NULL,
    CHECK ((ended IS NULL) = (why = ''))
);
CREATE UNIQUE INDEX loans_open ON loans (name) WHERE ended IS NULL;
CREATE INDEX loans_by_name ON loans (name, id);

ALTER TABLE leases ALTER build DROP NOT NULL;
ALTER TABLE leases ALTER n DROP NOT NULL;
ALTER TABLE leases ADD loan BIGINT UNIQUE REFERENCES loans (id);
ALTER TABLE leases ADD CHECK ((build IS NULL) <> (loan IS NULL));
ALTER TABLE leases ADD CHECK ((build IS NULL) = (n IS NULL));
