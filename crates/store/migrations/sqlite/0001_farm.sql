-- The farm store, SQLite. Told in full in docs/store-schema.md.
-- Times are microseconds since 1970 in UTC, booleans 0 or 1.

CREATE TABLE repos (
    repo           TEXT PRIMARY KEY,
    default_branch TEXT,
    fetched        INTEGER,
    error          TEXT,
    since          INTEGER NOT NULL
) STRICT;

CREATE TABLE commits (
    repo         TEXT NOT NULL,
    hash         TEXT NOT NULL,
    parents      TEXT NOT NULL,
    author_name  TEXT NOT NULL,
    author_email TEXT NOT NULL,
    author_time  INTEGER NOT NULL,
    commit_time  INTEGER NOT NULL,
    title        TEXT NOT NULL,
    message      TEXT NOT NULL,
    search       TEXT NOT NULL,
    PRIMARY KEY (repo, hash)
) STRICT;
CREATE INDEX commits_by_hash ON commits (hash);
CREATE INDEX commits_by_time ON commits (commit_time, search);

CREATE TABLE branches (
    repo       TEXT NOT NULL,
    branch     TEXT NOT NULL,
    head       TEXT NOT NULL,
    head_depth INTEGER NOT NULL CHECK (head_depth >= 0),
    build_from INTEGER NOT NULL CHECK (build_from >= 0),
    seen       INTEGER NOT NULL,
    gone       INTEGER NOT NULL CHECK (gone IN (0, 1)),
    PRIMARY KEY (repo, branch),
    FOREIGN KEY (repo, head) REFERENCES commits (repo, hash)
) STRICT;

CREATE TABLE branch_commits (
    repo   TEXT NOT NULL,
    branch TEXT NOT NULL,
    depth  INTEGER NOT NULL CHECK (depth >= 0),
    hash   TEXT NOT NULL,
    PRIMARY KEY (repo, branch, depth),
    FOREIGN KEY (repo, hash) REFERENCES commits (repo, hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX branch_commits_by_hash ON branch_commits (repo, hash);

CREATE TABLE builds (
    id             INTEGER PRIMARY KEY,
    repo           TEXT NOT NULL,
    commit_hash    TEXT NOT NULL,
    builder        TEXT NOT NULL,
    requested      INTEGER NOT NULL,
    state          TEXT NOT NULL
        CHECK (state IN ('waiting', 'running', 'passed', 'failed', 'infra', 'cancelled')),
    since          INTEGER NOT NULL,
    not_before     INTEGER,
    why            TEXT NOT NULL,
    tries_left     INTEGER NOT NULL CHECK (tries_left >= 0),
    machine        TEXT,
    attempts       INTEGER NOT NULL CHECK (attempts >= 0),
    asked_after    INTEGER NOT NULL CHECK (asked_after <= attempts),
    passed         INTEGER NOT NULL,
    failed         INTEGER NOT NULL,
    took           INTEGER NOT NULL CHECK (took >= 0),
    outcome_step   INTEGER,
    outcome_cause  TEXT,
    outcome_detail TEXT NOT NULL,
    UNIQUE (repo, commit_hash, builder),
    FOREIGN KEY (repo, commit_hash) REFERENCES commits (repo, hash)
) STRICT;
CREATE INDEX builds_by_state ON builds (state, id);
CREATE INDEX builds_by_builder ON builds (builder, id);
CREATE INDEX builds_by_repo ON builds (repo, id);
CREATE INDEX builds_by_commit ON builds (commit_hash, id);
CREATE INDEX builds_by_builder_state ON builds (builder, state, id);
CREATE INDEX builds_by_repo_state ON builds (repo, state, id);

CREATE TABLE build_counts (
    state TEXT PRIMARY KEY,
    n     INTEGER NOT NULL CHECK (n >= 0)
) STRICT;
INSERT INTO build_counts (state, n)
VALUES ('waiting', 0), ('running', 0), ('passed', 0), ('failed', 0), ('infra', 0), ('cancelled', 0);

CREATE TABLE attempts (
    build          INTEGER NOT NULL REFERENCES builds (id),
    n              INTEGER NOT NULL CHECK (n >= 1),
    machine        TEXT NOT NULL,
    host_type      TEXT NOT NULL,
    started        INTEGER NOT NULL,
    ended          INTEGER,
    plan           TEXT NOT NULL,
    outcome        TEXT CHECK (outcome IN ('passed', 'failed', 'infra', 'cancelled')),
    outcome_step   INTEGER,
    outcome_cause  TEXT,
    outcome_detail TEXT NOT NULL,
    CHECK ((ended IS NULL) = (outcome IS NULL)),
    PRIMARY KEY (build, n)
) STRICT;
CREATE INDEX attempts_by_machine ON attempts (machine, build);

CREATE TABLE steps (
    build    INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    idx      INTEGER NOT NULL CHECK (idx >= 0),
    started  INTEGER NOT NULL,
    ended    INTEGER,
    ok       INTEGER CHECK (ok IN (0, 1)),
    state    TEXT NOT NULL,
    log_idle INTEGER,
    CHECK ((ended IS NULL) = (ok IS NULL)),
    PRIMARY KEY (build, n, idx),
    FOREIGN KEY (build, n) REFERENCES attempts (build, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX steps_by_idle_log ON steps (log_idle) WHERE log_idle IS NOT NULL;

CREATE TABLE leases (
    machine TEXT PRIMARY KEY,
    build   INTEGER NOT NULL UNIQUE,
    n       INTEGER NOT NULL,
    taken   INTEGER NOT NULL,
    FOREIGN KEY (build, n) REFERENCES attempts (build, n)
) STRICT;

CREATE TABLE machines (
    machine    TEXT PRIMARY KEY,
    host_type  TEXT NOT NULL,
    pool       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    software   TEXT NOT NULL,
    address    TEXT NOT NULL,
    resumable  INTEGER NOT NULL CHECK (resumable IN (0, 1)),
    first_seen INTEGER NOT NULL,
    changed    INTEGER NOT NULL,
    connected  INTEGER NOT NULL CHECK (connected IN (0, 1)),
    why_gone   TEXT NOT NULL,
    CHECK (connected = 0 OR why_gone = '')
) STRICT;

CREATE TABLE run_times (
    repo    TEXT NOT NULL,
    builder TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    took    INTEGER NOT NULL CHECK (took >= 0),
    PRIMARY KEY (repo, builder, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE intents (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    by_who TEXT NOT NULL,
    wish   TEXT NOT NULL CHECK (wish IN ('retry', 'cancel')),
    build  INTEGER NOT NULL,
    done   INTEGER,
    answer TEXT NOT NULL
) STRICT;
CREATE INDEX intents_open ON intents (id) WHERE done IS NULL;

CREATE TABLE tokens (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name      TEXT NOT NULL,
    role      TEXT NOT NULL CHECK (role IN ('reader', 'contributor', 'admin')),
    hash      TEXT NOT NULL UNIQUE,
    created   INTEGER NOT NULL,
    expires   INTEGER,
    revoked   INTEGER,
    last_used INTEGER
) STRICT;
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked IS NULL;

CREATE TABLE machine_keys (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name      TEXT NOT NULL,
    host_type TEXT NOT NULL,
    hash      TEXT NOT NULL UNIQUE,
    created   INTEGER NOT NULL,
    revoked   INTEGER,
    last_used INTEGER
) STRICT;
CREATE UNIQUE INDEX machine_keys_by_name ON machine_keys (name) WHERE revoked IS NULL;
