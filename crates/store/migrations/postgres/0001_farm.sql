-- The farm store, PostgreSQL. Told in full in docs/store-schema.md.
-- Times are microseconds since 1970 in UTC, booleans 0 or 1.

CREATE TABLE repos (
    repo           TEXT COLLATE "C" PRIMARY KEY,
    default_branch TEXT COLLATE "C",
    fetched        BIGINT,
    error          TEXT COLLATE "C",
    since          BIGINT NOT NULL
);

CREATE TABLE commits (
    repo         TEXT COLLATE "C" NOT NULL,
    hash         TEXT COLLATE "C" NOT NULL,
    parents      TEXT COLLATE "C" NOT NULL,
    author_name  TEXT COLLATE "C" NOT NULL,
    author_email TEXT COLLATE "C" NOT NULL,
    author_time  BIGINT NOT NULL,
    commit_time  BIGINT NOT NULL,
    title        TEXT COLLATE "C" NOT NULL,
    message      TEXT COLLATE "C" NOT NULL,
    search       TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (repo, hash)
);
CREATE INDEX commits_by_hash ON commits (hash);
CREATE INDEX commits_by_time ON commits (commit_time, search);

CREATE TABLE branches (
    repo       TEXT COLLATE "C" NOT NULL,
    branch     TEXT COLLATE "C" NOT NULL,
    head       TEXT COLLATE "C" NOT NULL,
    head_depth BIGINT NOT NULL CHECK (head_depth >= 0),
    build_from BIGINT NOT NULL CHECK (build_from >= 0),
    seen       BIGINT NOT NULL,
    gone       BIGINT NOT NULL CHECK (gone IN (0, 1)),
    PRIMARY KEY (repo, branch),
    FOREIGN KEY (repo, head) REFERENCES commits (repo, hash)
);

CREATE TABLE branch_commits (
    repo   TEXT COLLATE "C" NOT NULL,
    branch TEXT COLLATE "C" NOT NULL,
    depth  BIGINT NOT NULL CHECK (depth >= 0),
    hash   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (repo, branch, depth),
    FOREIGN KEY (repo, hash) REFERENCES commits (repo, hash)
);
CREATE INDEX branch_commits_by_hash ON branch_commits (repo, hash);

CREATE TABLE builds (
    id             BIGINT PRIMARY KEY,
    repo           TEXT COLLATE "C" NOT NULL,
    commit_hash    TEXT COLLATE "C" NOT NULL,
    builder        TEXT COLLATE "C" NOT NULL,
    requested      BIGINT NOT NULL,
    state          TEXT COLLATE "C" NOT NULL
        CHECK (state IN ('waiting', 'running', 'passed', 'failed', 'infra', 'cancelled')),
    since          BIGINT NOT NULL,
    not_before     BIGINT,
    why            TEXT COLLATE "C" NOT NULL,
    tries_left     BIGINT NOT NULL CHECK (tries_left >= 0),
    machine        TEXT COLLATE "C",
    attempts       BIGINT NOT NULL CHECK (attempts >= 0),
    asked_after    BIGINT NOT NULL CHECK (asked_after <= attempts),
    passed         BIGINT NOT NULL,
    failed         BIGINT NOT NULL,
    took           BIGINT NOT NULL CHECK (took >= 0),
    outcome_step   BIGINT,
    outcome_cause  TEXT COLLATE "C",
    outcome_detail TEXT COLLATE "C" NOT NULL,
    UNIQUE (repo, commit_hash, builder),
    FOREIGN KEY (repo, commit_hash) REFERENCES commits (repo, hash)
);
CREATE INDEX builds_by_state ON builds (state, id);
CREATE INDEX builds_by_builder ON builds (builder, id);
CREATE INDEX builds_by_repo ON builds (repo, id);
CREATE INDEX builds_by_commit ON builds (commit_hash, id);
CREATE INDEX builds_by_builder_state ON builds (builder, state, id);
CREATE INDEX builds_by_repo_state ON builds (repo, state, id);

CREATE TABLE build_counts (
    state TEXT COLLATE "C" PRIMARY KEY,
    n     BIGINT NOT NULL CHECK (n >= 0)
);
INSERT INTO build_counts (state, n)
VALUES ('waiting', 0), ('running', 0), ('passed', 0), ('failed', 0), ('infra', 0), ('cancelled', 0);

CREATE TABLE attempts (
    build          BIGINT NOT NULL REFERENCES builds (id),
    n              BIGINT NOT NULL CHECK (n >= 1),
    machine        TEXT COLLATE "C" NOT NULL,
    host_type      TEXT COLLATE "C" NOT NULL,
    started        BIGINT NOT NULL,
    ended          BIGINT,
    plan           TEXT COLLATE "C" NOT NULL,
    outcome        TEXT COLLATE "C" CHECK (outcome IN ('passed', 'failed', 'infra', 'cancelled')),
    outcome_step   BIGINT,
    outcome_cause  TEXT COLLATE "C",
    outcome_detail TEXT COLLATE "C" NOT NULL,
    CHECK ((ended IS NULL) = (outcome IS NULL)),
    PRIMARY KEY (build, n)
);
CREATE INDEX attempts_by_machine ON attempts (machine, build);

CREATE TABLE steps (
    build    BIGINT NOT NULL,
    n        BIGINT NOT NULL,
    idx      BIGINT NOT NULL CHECK (idx >= 0),
    started  BIGINT NOT NULL,
    ended    BIGINT,
    ok       BIGINT CHECK (ok IN (0, 1)),
    state    TEXT COLLATE "C" NOT NULL,
    log_idle BIGINT,
    CHECK ((ended IS NULL) = (ok IS NULL)),
    PRIMARY KEY (build, n, idx),
    FOREIGN KEY (build, n) REFERENCES attempts (build, n)
);
CREATE INDEX steps_by_idle_log ON steps (log_idle) WHERE log_idle IS NOT NULL;

CREATE TABLE leases (
    machine TEXT COLLATE "C" PRIMARY KEY,
    build   BIGINT NOT NULL UNIQUE,
    n       BIGINT NOT NULL,
    taken   BIGINT NOT NULL,
    FOREIGN KEY (build, n) REFERENCES attempts (build, n)
);

CREATE TABLE machines (
    machine    TEXT COLLATE "C" PRIMARY KEY,
    host_type  TEXT COLLATE "C" NOT NULL,
    pool       TEXT COLLATE "C" NOT NULL,
    version    BIGINT NOT NULL,
    software   TEXT COLLATE "C" NOT NULL,
    address    TEXT COLLATE "C" NOT NULL,
    resumable  BIGINT NOT NULL CHECK (resumable IN (0, 1)),
    first_seen BIGINT NOT NULL,
    changed    BIGINT NOT NULL,
    connected  BIGINT NOT NULL CHECK (connected IN (0, 1)),
    why_gone   TEXT COLLATE "C" NOT NULL,
    CHECK (connected = 0 OR why_gone = '')
);

CREATE TABLE run_times (
    repo    TEXT COLLATE "C" NOT NULL,
    builder TEXT COLLATE "C" NOT NULL,
    seq     BIGINT NOT NULL,
    took    BIGINT NOT NULL CHECK (took >= 0),
    PRIMARY KEY (repo, builder, seq)
);

CREATE TABLE intents (
    id     BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at     BIGINT NOT NULL,
    by_who TEXT COLLATE "C" NOT NULL,
    wish   TEXT COLLATE "C" NOT NULL CHECK (wish IN ('retry', 'cancel')),
    build  BIGINT NOT NULL,
    done   BIGINT,
    answer TEXT COLLATE "C" NOT NULL
);
CREATE INDEX intents_open ON intents (id) WHERE done IS NULL;

CREATE TABLE tokens (
    id        BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    name      TEXT COLLATE "C" NOT NULL,
    role      TEXT COLLATE "C" NOT NULL CHECK (role IN ('reader', 'contributor', 'admin')),
    hash      TEXT COLLATE "C" NOT NULL UNIQUE,
    created   BIGINT NOT NULL,
    expires   BIGINT,
    revoked   BIGINT,
    last_used BIGINT
);
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked IS NULL;

CREATE TABLE machine_keys (
    id        BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    name      TEXT COLLATE "C" NOT NULL,
    host_type TEXT COLLATE "C" NOT NULL,
    hash      TEXT COLLATE "C" NOT NULL UNIQUE,
    created   BIGINT NOT NULL,
    revoked   BIGINT,
    last_used BIGINT
);
CREATE UNIQUE INDEX machine_keys_by_name ON machine_keys (name) WHERE revoked IS NULL;
