use corpus::{MilestoneOf, Trouble, UserId};
use maintpb::*;

use crate::log::{Log, ok};

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn secs(seconds: i64) -> ids::Timestamp {
    ids::Timestamp::from_secs(seconds)
}

fn user(id: i64, login: &str) -> GithubUser {
    GithubUser {
        id,
        login: login.into(),
    }
}

fn label(id: i64, name: &str) -> GithubLabel {
    GithubLabel {
        id,
        name: name.into(),
    }
}

/// A delta of golang/go#7.
fn delta() -> GithubIssueMutation {
    GithubIssueMutation {
        owner: "golang".into(),
        repo: "go".into(),
        number: 7,
        ..Default::default()
    }
}

fn of_issue(issue: GithubIssueMutation) -> Mutation {
    Mutation {
        github_issue: Some(issue),
        ..Default::default()
    }
}

fn of_repo(labels: GithubMutation) -> Mutation {
    let named = GithubMutation {
        owner: "golang".into(),
        repo: "go".into(),
        ..labels
    };
    Mutation {
        github: Some(named),
        ..Default::default()
    }
}

/// A log that has golang/go#7, and these deltas of it.
fn issue(deltas: impl IntoIterator<Item = GithubIssueMutation>) -> Log {
    let mut log = Log::default();
    let new = GithubIssueMutation {
        created: at(1),
        updated: at(2),
        user: Some(user(1, "ada")),
        title: "crash".into(),
        body_change: Some(StringChange {
            val: "it crashes".into(),
        }),
        no_milestone: true,
        closed: Some(BoolChange { val: false }),
        add_label: vec![label(10, "bug"), label(11, "linux")],
        assignees: vec![user(2, "bob")],
        ..delta()
    };
    for delta in std::iter::once(new).chain(deltas) {
        assert_eq!(log.apply(of_issue(delta)), []);
    }
    log
}

fn check(log: &Log, see: impl FnOnce(corpus::IssueView<'_>)) {
    see(log.corpus.repo("golang", "go").unwrap().issue(7).unwrap());
}

#[test]
fn a_new_issue_has_what_it_was_made_with() {
    let log = issue([]);
    check(&log, |issue| {
        assert_eq!(
            (&issue.title[..], ok(issue.body(&log.payloads))),
            ("crash", "it crashes".into())
        );
        assert_eq!(
            (issue.closed, issue.milestone, issue.user),
            (false, MilestoneOf::None, Some(UserId(1)))
        );
        assert_eq!(issue.label_names().collect::<Vec<_>>(), ["bug", "linux"]);
        assert_eq!((issue.created, issue.updated), (Some(secs(1)), Some(secs(2))));
        assert_eq!(log.corpus.login(UserId(2)).unwrap(), "bob");
    });
}

#[test]
fn a_delta_changes_only_what_it_sets() {
    let log = issue([
        GithubIssueMutation {
            updated: at(9),
            ..delta()
        },
        GithubIssueMutation {
            closed: Some(BoolChange { val: true }),
            closed_at: at(5),
            ..delta()
        },
        GithubIssueMutation {
            locked: Some(BoolChange { val: true }),
            pull_request: true,
            ..delta()
        },
        GithubIssueMutation {
            closed: Some(BoolChange { val: false }),
            ..delta()
        },
    ]);
    check(&log, |issue| {
        assert_eq!(
            (issue.closed, issue.locked, issue.pull_request),
            (false, true, true)
        );
        // Opened again, it keeps when it was closed last.
        assert_eq!(issue.closed_at, Some(secs(5)));
        assert_eq!((issue.updated, &issue.title[..]), (Some(secs(9)), "crash"));
    });
}

#[test]
fn a_body_of_the_old_form_cannot_be_cleared_and_one_of_the_new_form_can() {
    let body = |text: &str| GithubIssueMutation {
        body: text.into(),
        ..delta()
    };
    let change = |text: &str| GithubIssueMutation {
        body_change: Some(StringChange { val: text.into() }),
        ..delta()
    };
    let check_body = |deltas: Vec<GithubIssueMutation>, expect: &str| {
        let log = issue(deltas);
        check(&log, |issue| assert_eq!(ok(issue.body(&log.payloads)), expect));
    };
    check_body(vec![body("old"), body("")], "old");
    check_body(vec![body("old"), change("")], "");
    check_body(
        vec![GithubIssueMutation {
            body: "old".into(),
            ..change("new")
        }],
        "new",
    );
}

#[test]
fn a_label_is_removed_before_one_is_added() {
    let both = GithubIssueMutation {
        remove_label: vec![10, 11],
        add_label: vec![label(10, "Bug"), label(9, "arm")],
        ..delta()
    };
    check(&issue([both]), |issue| {
        assert_eq!(issue.label_names().collect::<Vec<_>>(), ["arm", "Bug"]);
        assert!(issue.has_label("arm") && !issue.has_label("linux"));
    });
    let whole = GithubIssueMutation {
        add_label: vec![label(11, "")],
        labels_snapshot_complete: true,
        ..delta()
    };
    check(&issue([whole]), |issue| {
        assert_eq!(issue.label_names().collect::<Vec<_>>(), ["linux"])
    });
}

#[test]
fn a_milestone_is_unknown_or_none_or_one() {
    let set = GithubIssueMutation {
        milestone_id: 5,
        milestone_num: 1,
        milestone_title: "Go1".into(),
        ..delta()
    };
    let mut log = issue([set.clone()]);
    check(&log, |issue| {
        assert_eq!(issue.milestone, MilestoneOf::Id(5));
        assert_eq!(issue.repo.milestones()[&5].title, "Go1");
    });
    log.apply(of_issue(GithubIssueMutation {
        no_milestone: true,
        ..set
    }));
    check(&log, |issue| assert_eq!(issue.milestone, MilestoneOf::None));
    let closed = GithubMilestone {
        id: 5,
        closed: Some(BoolChange { val: true }),
        ..Default::default()
    };
    log.apply(of_repo(GithubMutation {
        milestones: vec![closed],
        ..Default::default()
    }));
    check(&log, |issue| {
        let milestone = &issue.repo.milestones()[&5];
        assert_eq!(
            (&milestone.title[..], milestone.number, milestone.closed),
            ("Go1", 1, true)
        );
    });
    let bare = GithubIssueMutation {
        number: 8,
        created: at(1),
        ..delta()
    };
    log.apply(of_issue(bare));
    assert_eq!(
        log.corpus
            .repo("golang", "go")
            .unwrap()
            .issue(8)
            .unwrap()
            .milestone,
        MilestoneOf::Unknown
    );
}

#[test]
fn assignees_keep_the_order_in_which_they_came() {
    let more = GithubIssueMutation {
        assignees: vec![user(9, "eve"), user(2, "robert"), user(1, "")],
        ..delta()
    };
    let fewer = GithubIssueMutation {
        deleted_assignees: vec![9],
        ..delta()
    };
    let log = issue([more.clone()]);
    check(&log, |issue| {
        assert_eq!(issue.assignees, [UserId(2), UserId(9), UserId(1)])
    });
    assert_eq!(log.corpus.login(UserId(2)).unwrap(), "robert");
    assert_eq!(log.corpus.login(UserId(1)).unwrap(), "ada");
    check(&issue([more, fewer]), |issue| {
        assert_eq!(issue.assignees, [UserId(2), UserId(1)])
    });
}

#[test]
fn an_issue_that_is_gone_is_revived_by_any_delta() {
    let gone = GithubIssueMutation {
        not_exist: true,
        title: "ignored".into(),
        ..delta()
    };
    let mut log = issue([gone.clone()]);
    check(&log, |issue| {
        assert_eq!((issue.not_exist, &issue.title[..]), (true, "crash"))
    });
    log.apply(of_issue(GithubIssueMutation {
        updated: at(50),
        ..delta()
    }));
    check(&log, |issue| {
        assert_eq!((issue.not_exist, issue.updated), (false, Some(secs(50))))
    });
    let to = IssuePlace {
        owner: "golang".into(),
        repo: "vscode-go".into(),
        number: 3,
    };
    log.apply(of_issue(GithubIssueMutation {
        transferred_to: Some(to),
        ..gone
    }));
    check(&log, |issue| {
        assert_eq!(
            issue.transferred_to,
            Some(("golang".into(), "vscode-go".into(), 3))
        );
        assert!(issue.not_exist);
    });
}

#[test]
fn comments_are_edited_in_parts_and_deleted_whole() {
    let comment = |id, body: &str| GithubIssueCommentMutation {
        id,
        user: Some(user(3, "cy")),
        body: body.into(),
        created: at(100 - id),
        updated: at(100),
    };
    let first = GithubIssueMutation {
        comment: vec![comment(20, "b"), comment(10, "a"), comment(0, "bogus")],
        ..delta()
    };
    let edit = GithubIssueCommentMutation {
        id: 20,
        body: "B".into(),
        updated: at(200),
        ..Default::default()
    };
    let touch = GithubIssueCommentMutation {
        id: 10,
        ..Default::default()
    };
    let second = GithubIssueMutation {
        comment: vec![edit, touch],
        comment_status: Some(GithubIssueSyncStatus { server_date: at(300) }),
        ..delta()
    };
    let mut log = issue([first, second]);
    check(&log, |issue| {
        let seen: Vec<_> = issue
            .comments_by_time()
            .into_iter()
            .map(|comment| {
                (
                    comment.id,
                    comment.user,
                    comment.updated,
                    ok(corpus::Texts::text(&log.payloads, comment.body)),
                )
            })
            .collect();
        let cy = Some(UserId(3));
        assert_eq!(
            seen,
            [
                (20, cy, Some(secs(200)), "B".into()),
                (10, cy, Some(secs(100)), "a".into())
            ]
        );
        assert_eq!(issue.comments_as_of, Some(secs(300)));
        assert_eq!(issue.last_modified(), Some(secs(2)));
    });
    log.apply(of_issue(GithubIssueMutation {
        deleted_comments: vec![20],
        ..delta()
    }));
    check(&log, |issue| {
        assert_eq!(
            issue
                .comments
                .iter()
                .map(|comment| comment.id)
                .collect::<Vec<_>>(),
            [10]
        )
    });
}

#[test]
fn events_and_reviews_are_replaced_whole_and_raise_the_last_change() {
    let event = |id, kind: &str, created| GithubIssueEvent {
        id,
        event_type: kind.into(),
        actor_id: 4,
        created,
        team_reviewer: Some(GithubTeam {
            id: 70,
            slug: "core".into(),
        }),
        ..Default::default()
    };
    let review = GithubReview {
        id: 5,
        state: "APPROVED".into(),
        created: at(90),
        ..Default::default()
    };
    let log = issue([
        GithubIssueMutation {
            event: vec![event(30, "closed", at(80)), event(29, "labeled", at(81))],
            ..delta()
        },
        GithubIssueMutation {
            event: vec![event(30, "renamed", None), event(0, "bogus", at(999))],
            ..delta()
        },
        GithubIssueMutation {
            review: vec![review],
            ..delta()
        },
    ]);
    check(&log, |issue| {
        let ids: Vec<_> = issue.events_by_time().into_iter().map(|event| event.id).collect();
        assert_eq!(ids, [30, 29]);
        assert!(issue.has_event("renamed") && !issue.has_event("closed"));
        assert_eq!(issue.last_modified(), Some(secs(90)));
        assert_eq!(
            ok(issue.events[0].details(&log.payloads)).unwrap().event_type,
            "labeled"
        );
        assert_eq!(
            ok(issue.reviews[0].details(&log.payloads)).unwrap().state,
            "APPROVED"
        );
    });
    assert_eq!(log.corpus.team(70).unwrap(), "core");
}

#[test]
fn labels_and_milestones_are_learned_renamed_and_deleted() {
    let mut log = issue([]);
    let renamed = GithubMutation {
        labels: vec![label(10, "Bug"), label(12, "new")],
        renamed_from: "golang/hg".into(),
        ..Default::default()
    };
    log.apply(of_repo(renamed));
    check(&log, |issue| assert!(issue.has_label("Bug")));
    log.apply(of_repo(GithubMutation {
        deleted_labels: vec![10],
        ..Default::default()
    }));
    check(&log, |issue| {
        assert_eq!(issue.label_names().collect::<Vec<_>>(), ["", "linux"])
    });
    let repo = log.corpus.repo("golang", "go").unwrap();
    assert_eq!(repo.labels().keys().copied().collect::<Vec<_>>(), [11, 12]);
    assert_eq!(repo.renamed_from(), Some("golang/hg"));
}

#[test]
fn what_makes_no_sense_is_passed_over_and_told() {
    let mut log = Log::default();
    assert_eq!(
        log.apply(of_issue(GithubIssueMutation { number: 0, ..delta() })),
        [Trouble::NoIssueNumber { number: 0 }]
    );
    let nameless = GithubIssueMutation {
        owner: String::new(),
        created: at(1),
        ..delta()
    };
    assert_eq!(log.apply(of_issue(nameless)), [Trouble::NoRepo]);
    assert_eq!(log.corpus.repos().count(), 0);
    assert_eq!(
        log.apply(of_issue(delta())),
        [Trouble::NoCreationTime { number: 7 }]
    );
    check(&log, |issue| assert_eq!(issue.created, None));
}

#[test]
fn a_clone_shows_what_was_there_when_it_was_made() {
    let mut log = issue([]);
    let before = log.corpus.clone();
    log.apply(of_issue(GithubIssueMutation {
        title: "fixed".into(),
        remove_label: vec![10],
        ..delta()
    }));
    let title = |corpus: &corpus::Corpus| {
        let issue = corpus.repo("golang", "go").unwrap().issue(7).unwrap();
        (issue.title.to_string(), issue.labels.len())
    };
    assert_eq!(
        (title(&before), title(&log.corpus)),
        (("crash".into(), 2), ("fixed".into(), 1))
    );
}
