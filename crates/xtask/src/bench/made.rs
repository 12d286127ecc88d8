//! A farm store with a long past, made from nothing but numbers: the same for the same size.

use std::path::Path;

use anyhow::Context;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use store::{Store, StoreUrl};

/// The repository that all of it is of; it must be in the configuration, and needs no upstream.
pub const REPO: &str = "past";

/// How much there is to be.
#[derive(Debug, Clone, Copy)]
pub struct Past {
    /// `b0000`, `b0001`, ...
    pub builders: usize,
    /// On `main`, all of them built by all builders.
    pub commits: usize,
}

impl Past {
    pub fn builds(self) -> usize {
        self.builders * self.commits
    }

    /// Makes the store in `state`: one build in 40 failed, the others passed; each has an attempt and a step.
    pub fn make(self, state: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(state)?;
        let file = state.join("farm.db");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            Store::open(&StoreUrl::Sqlite(file.clone())).await?.close().await;
            let options = SqliteConnectOptions::new()
                .filename(&file)
                .pragma("synchronous", "OFF")
                .pragma("cache_size", "-400000")
                .disable_statement_logging();
            let mut conn = options.connect().await.context("open the made store")?;
            for statement in self.statements() {
                let what = statement.chars().take(60).collect::<String>();
                conn.execute(AssertSqlSafe(statement))
                    .await
                    .with_context(|| format!("run `{what}`"))?;
            }
            conn.close().await?;
            anyhow::Ok(())
        })
    }

    fn statements(self) -> Vec<String> {
        let Past { builders, commits } = self;
        let total = self.builds();
        let hash = |depth: &str| {
            format!("printf('%08x%032x', ({depth} * 2654435761 + 12345) & 4294967295, {depth})")
        };
        let count = |n: usize| {
            format!("WITH RECURSIVE k(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM k WHERE i + 1 < {n})")
        };
        // Microseconds: a commit every half hour, a build of it 7 s after, for a minute or so.
        let time = |depth: &str| format!("(1600000000 + {depth} * 1800) * 1000000");
        let (depth, builder) = (format!("(i / {builders})"), format!("(i % {builders})"));
        let began = format!("{} + 7000000 + {builder} * 1000", time(&depth));
        let took = "(20000000 + (i * 7919) % 90000000)";
        let failed = "((i * 2654435761) / 65536 % 40 = 0)";
        let plan = r#"{"source_dir":".","steps":[{"name":"test","command":{"args":["make","test"]},"dir":".","env":[["CI","true"],["BURROW","1"]],"timeout_ms":3600000,"silence_ms":600000}],"limit_ms":7200000}"#;
        vec![
            "BEGIN".to_owned(),
            format!(
                "{} INSERT INTO commits SELECT '{REPO}', {}, CASE WHEN i = 0 THEN '' ELSE {} END, 'Ann', \
                 'ann@example.org', {t}, {t}, 'change ' || i, 'change ' || i || char(10), \
                 'change ' || i || ' ann ann@example.org' FROM k",
                count(commits),
                hash("i"),
                hash("(i - 1)"),
                t = time("i")
            ),
            format!(
                "{} INSERT INTO branch_commits SELECT '{REPO}', 'main', i, {} FROM k",
                count(commits),
                hash("i")
            ),
            format!(
                "INSERT INTO branches VALUES ('{REPO}', 'main', {}, {last}, 0, {}, 0)",
                hash(&(commits - 1).to_string()),
                time(&commits.to_string()),
                last = commits - 1
            ),
            format!(
                "INSERT INTO repos VALUES ('{REPO}', 'main', {t}, NULL, {t})",
                t = time(&commits.to_string())
            ),
            format!(
                "{} INSERT INTO builds SELECT i + 1, '{REPO}', {}, printf('b%04d', {builder}), {began}, \
                 CASE WHEN {failed} THEN 'failed' ELSE 'passed' END, {began} + {took}, NULL, '', 3, NULL, 1, 0, \
                 NOT {failed}, {failed}, {took}, CASE WHEN {failed} THEN 0 END, NULL, \
                 CASE WHEN {failed} THEN 'step `test`: exit status 1' ELSE '' END FROM k",
                count(total),
                hash(&depth)
            ),
            format!(
                "{} INSERT INTO attempts SELECT i + 1, 1, 'local-' || (1 + i % 8), 'local', {began}, {began} + {took}, \
                 '{plan}', CASE WHEN {failed} THEN 'failed' ELSE 'passed' END, CASE WHEN {failed} THEN 0 END, NULL, \
                 CASE WHEN {failed} THEN 'step `test`: exit status 1' ELSE '' END FROM k",
                count(total)
            ),
            format!(
                "{} INSERT INTO steps SELECT i + 1, 1, 0, {began}, {began} + {took}, NOT {failed}, \
                 CASE WHEN {failed} THEN 'exit status 1' ELSE 'ok' END, -1 FROM k",
                count(total)
            ),
            format!(
                "{} INSERT INTO run_times SELECT '{REPO}', printf('b%04d', i / 20), i % 20, 20000000 + i FROM k",
                count(builders * 20)
            ),
            "UPDATE build_counts SET n = (SELECT COUNT(*) FROM builds b WHERE b.state = build_counts.state)"
                .to_owned(),
            "COMMIT".to_owned(),
            "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
        ]
    }
}
