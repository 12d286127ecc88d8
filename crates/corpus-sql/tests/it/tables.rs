use std::collections::BTreeMap;

use corpus::Texts;
use corpus_sql::{Cell, Only, SqlError, TABLES, rows};
use maintpb::*;

use crate::{example, source, sql};

#[test]
fn every_table_has_rows_and_sql_gives_them_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let source = example(dir.path(), 4000);
    let sql = sql(&source);
    for table in TABLES {
        let direct: Vec<Vec<Cell>> = rows(&source, table, &Only::default())
            .collect::<Result<_, _>>()
            .unwrap();
        let asked = sql.all(&format!("SELECT * FROM {}", table.name), &[]).unwrap();
        // The made-up log has none of these.
        let none = [
            "inline_comments",
            "attention",
            "teams",
            "reviews",
            "milestones",
            "commit_parents",
        ];
        assert!(!direct.is_empty() || none.contains(&table.name), "{}", table.name);
        assert!(direct == asked, "{}", table.name);
    }
}

#[test]
fn looking_one_up_finds_what_walking_over_all_finds() {
    let dir = tempfile::tempdir().unwrap();
    let source = example(dir.path(), 3000);
    let sql = sql(&source);
    for (table, keys) in [
        ("comments", "repo, number"),
        ("issue_labels", "repo, number"),
        ("messages", "project, number"),
        ("votes", "project, number"),
        ("commit_files", "hash"),
        ("refs", "project"),
    ] {
        let join = format!(
            "SELECT count(*) FROM (SELECT DISTINCT {keys} FROM {table}) k JOIN {table} USING ({keys})"
        );
        let all = format!("SELECT count(*) FROM {table}");
        assert_eq!(
            sql.all(&join, &[]).unwrap(),
            sql.all(&all, &[]).unwrap(),
            "{table}"
        );
    }
    let count = |query: &str, values: &[&str]| sql.all(query, values).unwrap()[0][0].clone();
    let walked = "SELECT count(*) FROM issues WHERE repo || '' = ? AND number + 0 > 0";
    let found = "SELECT count(*) FROM issues WHERE repo = ?";
    let (walked, found) = (count(walked, &["golang/go"]), count(found, &["golang/go"]));
    assert_eq!(walked, found);
    assert!(matches!(found, Cell::Int(n) if n > 10), "{found:?}");
    for none in [
        "SELECT count(*) FROM issues WHERE repo = 'golang'",
        "SELECT count(*) FROM issues WHERE number = 'x'",
        "SELECT count(*) FROM issues WHERE number = 99999999999",
        "SELECT count(*) FROM issues WHERE number IS NULL",
        "SELECT count(*) FROM commits WHERE hash = 'x'",
        "SELECT count(*) FROM issues WHERE repo = 'GOLANG/GO'",
    ] {
        assert_eq!(count(none, &[]), Cell::Int(0), "{none}");
    }
    let nocase = "SELECT count(*) FROM issues WHERE repo = 'GOLANG/GO' COLLATE NOCASE";
    assert_eq!(count(nocase, &[]), found);
}

#[test]
fn open_issues_by_label_are_counted_as_the_corpus_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let source = example(dir.path(), 5000);
    let mut expect = BTreeMap::new();
    for issue in source.corpus.repos().flat_map(|repo| repo.issues()) {
        if !issue.closed && !issue.not_exist {
            for label in issue.label_names() {
                *expect.entry(label.to_owned()).or_insert(0_i64) += 1;
            }
        }
    }
    let query = "SELECT label, count(*) FROM issue_labels JOIN issues USING (repo, number)
        WHERE state = 'open' GROUP BY label";
    let found = sql(&source).all(query, &[]).unwrap();
    let found: BTreeMap<String, i64> = found
        .into_iter()
        .map(|row| match &row[..] {
            [Cell::Text(label), Cell::Int(count)] => (label.clone(), *count),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(expect.len() > 3);
    assert_eq!(found, expect);
}

#[test]
fn nothing_can_be_changed_and_no_file_reached() {
    let dir = tempfile::tempdir().unwrap();
    let sql = sql(&example(dir.path(), 10));
    let refused = |query: &str| sql.all(query, &[]).unwrap_err().to_string();
    let file = dir.path().join("stolen.db");
    assert!(refused(&format!("ATTACH '{}' AS x", file.display())).contains("too many attached databases"));
    assert!(!file.exists());
    assert!(refused(&format!("VACUUM INTO '{}'", file.display())).contains("only be read"));
    assert!(!file.exists());
    assert!(refused("CREATE TABLE t (a)").contains("only be read"));
    assert!(refused("DELETE FROM issues").contains("may not be modified"));
    assert!(refused("SELECT * FROM nowhere").contains("no such table: nowhere"));
    refused("SELECT load_extension('x')");
    let wrong = sql.all("SELECT ?", &[]).unwrap_err();
    assert!(matches!(wrong, SqlError::Parameters { found: 0, wanted: 1 }));
}

#[test]
fn a_text_that_the_log_lost_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let source = example(&log, 500);
    std::fs::remove_dir_all(&log).unwrap();
    source.texts.forget();
    let error = sql(&source).all("SELECT body FROM comments", &[]).unwrap_err();
    assert!(
        error.to_string().contains("cannot read a text of the log"),
        "{error}"
    );
    // What needs no text is still there.
    sql(&source).all("SELECT number, title FROM issues", &[]).unwrap();
}

#[test]
fn what_the_made_up_log_lacks_is_shown_too() {
    let dir = tempfile::tempdir().unwrap();
    let hash = |n: u32| format!("{n:040x}");
    let commit = |n: u32, parent: Option<u32>, message: &str| GitCommit {
        sha1: hash(n),
        raw: format!(
            "tree {}\n{}author A <5@srv> 60 +0000\ncommitter G <g@srv> 60 +0000\n\n{message}",
            hash(0),
            parent.map_or(String::new(), |n| format!("parent {}\n", hash(n)))
        )
        .into_bytes(),
        diff_tree: None,
    };
    let turn = "{\"person_ident\":\"G \\u003c6@srv\\u003e\",\"operation\":\"ADD\",\"reason\":\"new\"}";
    let note = "{\"comments\":[{\"key\":{\"uuid\":\"u\",\"filename\":\"a.go\",\"patchSetId\":1},\"lineNbr\":7,\
        \"author\":{\"id\":5},\"message\":\"why?\",\"unresolved\":true}]}";
    let gerrit = GerritMutation {
        project: "srv/p".into(),
        commits: vec![
            commit(
                1,
                None,
                "subject\n\nChange-Id: I0123456789012345678901234567890123456789\n",
            ),
            commit(
                2,
                None,
                &format!("Create\n\nPatch-set: 1\nCC: B <6@srv>\nAttention: {turn}\n"),
            ),
            commit(3, Some(2), "Update\n\nPatch-set: 1\nTopic: t\n"),
        ],
        refs: [("refs/changes/01/1/1", 1), ("refs/changes/01/1/meta", 3)]
            .map(|(name, n)| GitRef {
                r#ref: name.into(),
                sha1: hash(n),
            })
            .into(),
        inline_comments: vec![GerritInlineComment {
            cl: 1,
            revision: hash(1),
            json: note.into(),
        }],
        ..Default::default()
    };
    let issue = GithubIssueMutation {
        owner: "o".into(),
        repo: "r".into(),
        number: 3,
        created: Some(Timestamp { seconds: 1, nanos: 0 }),
        pull_request: true,
        milestone_id: 9,
        milestone_num: 2,
        milestone_title: "m".into(),
        review: vec![GithubReview {
            id: 4,
            state: "APPROVED".into(),
            body: "fine".into(),
            ..Default::default()
        }],
        event: vec![GithubIssueEvent {
            id: 5,
            event_type: "review_requested".into(),
            team_reviewer: Some(GithubTeam {
                id: 8,
                slug: "team".into(),
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let gerrit = Mutation {
        gerrit: Some(gerrit),
        ..Default::default()
    };
    let github = Mutation {
        github_issue: Some(issue),
        ..Default::default()
    };
    let source = source(dir.path(), [gerrit, github].into_iter());
    let sql = sql(&source);
    let check = |query: &str, expect: &str| {
        let rows = sql
            .all(query, &[])
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        let rows: Vec<String> = rows
            .iter()
            .map(|row| row.iter().map(Cell::to_string).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(rows.join("; "), expect, "{query}");
    };
    check(
        "SELECT number, topic, change_id, owner FROM changes",
        "1 t I0123456789012345678901234567890123456789 A <5@srv>",
    );
    check(
        "SELECT person, since, reason FROM attention",
        "6@srv 1970-01-01T00:01:00Z new",
    );
    check("SELECT person, part FROM reviewers", "6@srv cc");
    check(
        "SELECT patch_set, file, line, account, unresolved, message FROM inline_comments",
        "1 a.go 7 5 1 why?",
    );
    check(
        "SELECT position, parent FROM commit_parents",
        &format!("0 {}", hash(2)),
    );
    check("SELECT state, body FROM reviews", "APPROVED fine");
    check("SELECT kind, team FROM events", "review_requested team");
    check("SELECT slug FROM teams", "team");
    check("SELECT title, number, state FROM milestones", "m 2 open");
    check(
        "SELECT milestone, state, pull_request, author FROM issues",
        "m open 1 ",
    );
    assert_eq!(source.texts.text(corpus::Span::default()).unwrap(), "");
}
