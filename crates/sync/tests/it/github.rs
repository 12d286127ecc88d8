//! A repository of GitHub, synced through its life.

use std::collections::BTreeSet;
use std::time::Instant;

use corpus::{Corpus, MilestoneOf};
use github::{Budget, Client};
use maintpb::borrowed::{Mutation, View};
use serde_json::json;
use sync::github::{GitHub, GitHubError, Poll, Repo, Round, Trouble};
use testkit::Random;
use testkit::github as fake;
use testkit::github::World;

use crate::log::{self, Log};

struct Syncer {
    server: fake::GitHub,
    client: Client,
    budget: tokio::sync::Mutex<Budget>,
    poll: Poll,
    log: Log,
}

impl Syncer {
    async fn new() -> Syncer {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = fake::GitHub::start().await;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let client = Client::new(http.build().unwrap(), &server.base, Some("token".to_owned()));
        Syncer {
            server,
            client,
            budget: tokio::sync::Mutex::new(Budget::new(0, 1)),
            poll: Poll::new(Repo::new("o", "r")),
            log: Log::default(),
        }
    }

    /// As after a restart: what is known is what is logged.
    fn restart(&mut self) {
        let mut poll = Poll::new(Repo::new("o", "r"));
        for payload in &self.log.0 {
            poll.apply(&Mutation::decode(payload).unwrap());
        }
        self.poll = poll;
    }

    /// A minute later. `room`: the log takes that many mutations, then fails.
    async fn try_round(&mut self, round: Round, room: usize) -> Result<usize, GitHubError<&'static str>> {
        {
            let mut world = self.server.world();
            world.now += 60;
            world.asked.clear();
        }
        let github = GitHub {
            client: &self.client,
            budget: &self.budget,
            started: Instant::now(),
        };
        github
            .round(&mut self.poll, round, &mut self.log.with_room(room))
            .await
    }

    /// How many mutations it took.
    async fn round(&mut self, round: Round) -> usize {
        self.try_round(round, usize::MAX / 2).await.unwrap()
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.server.world()
    }

    fn asked(&self) -> Vec<(u16, String)> {
        self.world().asked.clone()
    }

    #[track_caller]
    fn check(&self) {
        let corpus = log::corpus(&self.log);
        let (ours, theirs) = (ours(&corpus, &self.log), theirs(&self.world()));
        let only_ours: Vec<&String> = ours.difference(&theirs).collect();
        let only_theirs: Vec<&String> = theirs.difference(&ours).collect();
        assert!(
            only_ours.is_empty() && only_theirs.is_empty(),
            "ours {only_ours:#?}\ntheirs {only_theirs:#?}"
        );
    }
}

/// What both sides must say, as lines.
fn ours(corpus: &Corpus, log: &Log) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    let Some(repo) = corpus.repo("o", "r") else {
        return said;
    };
    said.extend(
        repo.labels()
            .iter()
            .map(|(id, label)| format!("label {id} {}", label.name)),
    );
    said.extend(
        repo.milestones()
            .iter()
            .map(|(id, of)| format!("milestone {id} {} {} {}", of.title, of.number, of.closed)),
    );
    for issue in repo.issues().filter(|issue| !issue.not_exist) {
        let number = issue.number;
        let seconds = |time: Option<ids::Timestamp>| time.map(ids::Timestamp::as_secs);
        said.insert(format!("{number} {} {:?}", issue.title, issue.body(log).unwrap()));
        said.insert(format!(
            "{number} closed {} locked {} pr {}",
            issue.closed, issue.locked, issue.pull_request
        ));
        said.insert(format!(
            "{number} {:?} {:?}",
            seconds(issue.created),
            seconds(issue.updated)
        ));
        let milestone = match issue.milestone {
            MilestoneOf::Unknown => "unknown".to_owned(),
            MilestoneOf::None => "none".to_owned(),
            MilestoneOf::Id(id) => id.to_string(),
        };
        said.insert(format!(
            "{number} user {:?} milestone {milestone}",
            issue.user.map(|user| user.0)
        ));
        said.extend(
            issue
                .assignees
                .iter()
                .map(|user| format!("{number} assignee {}", user.0)),
        );
        said.extend(issue.label_names().map(|name| format!("{number} label {name}")));
        said.extend(
            issue
                .closed_at
                .map(|at| format!("{number} closed at {}", at.as_secs())),
        );
        said.extend(issue.comments.iter().map(|comment| {
            let body = corpus::Texts::text(log, comment.body).unwrap();
            format!(
                "{number} comment {} {:?} {body:?} {:?}",
                comment.id,
                comment.user.map(|user| user.0),
                seconds(comment.updated)
            )
        }));
        said.extend(issue.events.iter().map(|event| {
            format!(
                "{number} event {} {} {:?}",
                event.id,
                corpus.kind(event),
                event.actor.map(|user| user.0)
            )
        }));
        said.extend(
            issue
                .reviews
                .iter()
                .map(|review| format!("{number} review {}", review.id)),
        );
    }
    said
}

fn theirs(world: &World) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    said.extend(world.labels.iter().map(|(id, name)| format!("label {id} {name}")));
    said.extend(
        world
            .milestones
            .iter()
            .map(|(id, (title, closed))| format!("milestone {id} {title} {} {closed}", id + 10)),
    );
    for (number, issue) in &world.issues {
        said.insert(format!(
            "{number} {} {:?}",
            issue.title,
            issue.body.as_deref().unwrap_or_default()
        ));
        said.insert(format!(
            "{number} closed {} locked {} pr {}",
            issue.closed, issue.locked, issue.pull_request
        ));
        said.insert(format!(
            "{number} {:?} {:?}",
            Some(issue.created),
            Some(issue.updated)
        ));
        let milestone = issue.milestone.map_or("none".to_owned(), |id| id.to_string());
        said.insert(format!(
            "{number} user {:?} milestone {milestone}",
            Some(issue.user)
        ));
        said.extend(
            issue
                .assignees
                .iter()
                .map(|user| format!("{number} assignee {user}")),
        );
        said.extend(
            issue
                .labels
                .iter()
                .filter_map(|id| world.labels.get(id))
                .map(|name| format!("{number} label {name}")),
        );
        said.extend(issue.closed_at.map(|at| format!("{number} closed at {at}")));
        said.extend(issue.comments.iter().map(|(id, comment)| {
            format!(
                "{number} comment {id} {:?} {:?} {:?}",
                Some(comment.user),
                comment.body,
                Some(comment.updated)
            )
        }));
        said.extend(issue.events.iter().map(|(id, event)| {
            format!(
                "{number} event {id} {} {:?}",
                event["event"].as_str().unwrap(),
                event["actor"]["id"].as_i64()
            )
        }));
        said.extend(issue.reviews.keys().map(|id| format!("{number} review {id}")));
    }
    said
}

#[tokio::test]
async fn a_change_is_told_once_and_whole() {
    let mut syncer = Syncer::new().await;
    let first = {
        let mut world = syncer.world();
        let first = world.open("first", "body");
        let label = world.label("bug");
        let milestone = world.milestone("1.0");
        world.edit(first, |issue| {
            issue.labels.insert(label);
            issue.milestone = Some(milestone);
            issue.assignees.extend([5, 6]);
        });
        world.comment(first, "hello");
        world.event(first, "labeled", json!({"label": {"name": "bug"}}));
        let pull = world.open("pull", "");
        world.edit(pull, |issue| issue.pull_request = true);
        world.review(pull, "APPROVED");
        first
    };
    // Labels, milestones, and each issue with all its parts.
    assert_eq!(syncer.round(Round::Recent).await, 4);
    syncer.check();
    assert_eq!(syncer.round(Round::Recent).await, 0);
    {
        let mut world = syncer.world();
        let at = world.now;
        world.edit(first, |issue| {
            (issue.closed, issue.locked, issue.closed_at) = (true, true, Some(at));
            issue.body = None;
            issue.title = "renamed".to_owned();
            issue.milestone = None;
            issue.labels.clear();
            issue.assignees = BTreeSet::from([6, 7]);
        });
        world.comment(first, "more");
        world.event(
            first,
            "closed",
            json!({"commit_id": "abc", "commit_url": "https://api.github.com/repos/o/r/commits/abc"}),
        );
    }
    assert_eq!(syncer.round(Round::Recent).await, 1);
    syncer.check();
}

#[tokio::test]
async fn a_quiet_repository_costs_three_questions() {
    let mut syncer = Syncer::new().await;
    syncer.world().open("a", "b");
    syncer.round(Round::Recent).await;
    // The address of the list has the newest time in it, so it is new once more.
    syncer.round(Round::Recent).await;
    assert_eq!(syncer.round(Round::Recent).await, 0);
    let statuses: Vec<u16> = syncer.asked().iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [304, 304, 304]);
}

#[tokio::test]
async fn what_an_event_says_is_kept() {
    let mut syncer = Syncer::new().await;
    {
        let mut world = syncer.world();
        let number = world.open("a", "b");
        world.event(
            number,
            "closed",
            json!({
                "commit_id": "abc", "commit_url": "https://api.github.com/repos/x/y/commits/abc", "lock_reason": "spam",
                "rename": {"from": "p", "to": "q"}, "assignee": {"id": 5}, "assigner": {"id": 6}, "milestone": {"title": "1.0"},
                "requested_reviewer": {"id": 7}, "review_requester": {"id": 8}, "requested_team": {"id": 9, "slug": "team"},
                "dismissed_review": {"review_id": 3, "state": "approved", "dismissal_message": "why"},
                "z": 1, "b": {"c": null}, "nothing": null,
            }),
        );
    }
    syncer.round(Round::Recent).await;
    let told = Mutation::decode(syncer.log.0.last().unwrap()).unwrap().copied();
    let event = told.github_issue.unwrap().event.remove(0);
    let commit = event.commit.unwrap();
    assert_eq!(
        [&commit.owner[..], &commit.repo, &commit.commit_id],
        ["x", "y", "abc"]
    );
    assert_eq!((&event.rename_from[..], &event.rename_to[..]), ("p", "q"));
    assert_eq!(
        [
            event.actor_id,
            event.assignee_id,
            event.assigner_id,
            event.reviewer_id,
            event.review_requester_id
        ],
        [3, 5, 6, 7, 8]
    );
    assert_eq!(event.milestone.unwrap().title, "1.0");
    assert_eq!(event.team_reviewer.unwrap().slug, "team");
    let dismissed = event.dismissed_review.unwrap();
    assert_eq!(
        (
            dismissed.review_id,
            &dismissed.state[..],
            &dismissed.dismissal_message[..]
        ),
        (3, "approved", "why")
    );
    assert_eq!(
        String::from_utf8(event.other_json).unwrap(),
        r#"{"b":{"c":null},"z":1}"#
    );
}

#[tokio::test]
async fn nothing_is_missed_while_issues_move_between_pages() {
    let mut syncer = Syncer::new().await;
    {
        let mut world = syncer.world();
        world.page = 3;
        for n in 0..20 {
            world.now += i64::from(n % 3 == 0);
            let number = world.open(&format!("issue {n}"), "");
            for n in 0..n % 5 {
                world.comment(number, &format!("comment {n}"));
            }
        }
        // After each page of issues the first issues of it are touched: all others move up.
        world.now += 100;
        let mut next = 1;
        world.meddle(move |world, address| {
            if address.contains("/issues?") && next <= 12 {
                world.edit(next, |issue| issue.title.push('!'));
                world.edit(next + 1, |issue| issue.title.push('!'));
                next += 2;
            }
        });
    }
    syncer.round(Round::Recent).await;
    syncer.check();
    syncer.round(Round::Recent).await;
    syncer.check();
    assert_eq!(syncer.round(Round::Recent).await, 0);
}

#[tokio::test]
async fn many_issues_of_one_second_are_all_read() {
    let mut syncer = Syncer::new().await;
    {
        let mut world = syncer.world();
        world.page = 2;
        for n in 0..7 {
            world.open(&n.to_string(), "");
        }
    }
    assert_eq!(syncer.round(Round::Recent).await, 7);
    syncer.check();
}

#[tokio::test]
async fn a_deleted_comment_is_seen_when_its_issue_changes_or_all_is_looked_at() {
    let mut syncer = Syncer::new().await;
    let (number, ids) = {
        let mut world = syncer.world();
        let number = world.open("a", "");
        let ids = [1, 2, 3].map(|n| world.comment(number, &n.to_string()));
        (number, ids)
    };
    syncer.round(Round::Recent).await;
    syncer
        .world()
        .edit(number, |issue| drop(issue.comments.remove(&ids[0])));
    assert_eq!(syncer.round(Round::Recent).await, 1);
    syncer.check();
    // One goes and two come.
    let (gone, kept) = (ids[1], ids[2]);
    syncer.world().edit(number, |issue| {
        issue.comments.remove(&gone);
    });
    (0..2).for_each(|_| _ = syncer.world().comment(number, "more"));
    assert_eq!(syncer.round(Round::Recent).await, 1);
    syncer.check();
    syncer.round(Round::Recent).await;
    // One goes, and nothing else says so than their count.
    let remove = |world: &mut World, id: i64| {
        world
            .issues
            .get_mut(&number)
            .unwrap()
            .comments
            .remove(&id)
            .unwrap()
    };
    let comment = remove(&mut syncer.world(), kept);
    assert_eq!(syncer.round(Round::Recent).await, 1);
    syncer.check();
    // One is another, and not even that says so.
    {
        let mut world = syncer.world();
        let id = *world.issues[&number].comments.keys().next().unwrap();
        remove(&mut world, id);
        world
            .issues
            .get_mut(&number)
            .unwrap()
            .comments
            .insert(99, comment);
    }
    assert_eq!(syncer.round(Round::Recent).await, 0);
    syncer.round(Round::Full).await;
    syncer.check();
}

#[tokio::test]
async fn issues_that_are_gone_are_found_and_where_they_went() {
    let mut syncer = Syncer::new().await;
    {
        let mut world = syncer.world();
        for n in 0..4 {
            world.open(&n.to_string(), "");
        }
    }
    syncer.round(Round::Recent).await;
    {
        let mut world = syncer.world();
        world.issues.remove(&2);
        world.deleted.insert(2);
        world.issues.remove(&3);
        world
            .transferred
            .insert(3, ("elsewhere".to_owned(), "there".to_owned(), 77));
    }
    assert_eq!(syncer.round(Round::Recent).await, 0, "the list does not show it");
    syncer.round(Round::Full).await;
    syncer.check();
    let corpus = log::corpus(&syncer.log);
    let repo = corpus.repo("o", "r").unwrap();
    assert!(repo.issue(2).unwrap().not_exist && repo.issue(3).unwrap().not_exist);
    let there = ("elsewhere".to_owned(), "there".to_owned(), 77);
    assert_eq!(repo.issue(3).unwrap().transferred_to, Some(there));
    let before = syncer.log.0.len();
    syncer.round(Round::Full).await;
    let gone = |payload: &Vec<u8>| Mutation::decode(payload).unwrap().github_issue.unwrap().not_exist;
    assert!(
        !syncer.log.0[before..].iter().any(gone),
        "what is gone is told once"
    );
}

#[tokio::test]
async fn an_issue_that_goes_while_we_look_stops_no_other() {
    let mut syncer = Syncer::new().await;
    {
        let mut world = syncer.world();
        for n in 0..3 {
            world.open(&n.to_string(), "");
        }
        world.meddle(|world, address| {
            if address.contains("/issues/2/comments") {
                world.issues.remove(&2);
                world.deleted.insert(2);
            }
        });
    }
    syncer.round(Round::Recent).await;
    syncer.check();
}

#[tokio::test]
async fn an_odd_issue_is_told_as_far_as_it_goes_and_stops_no_other() {
    let mut syncer = Syncer::new().await;
    {
        let mut world = syncer.world();
        for n in 0..3 {
            let number = world.open(&n.to_string(), "");
            world.comment(number, "said");
        }
        world.broken.insert(2);
    }
    assert_eq!(syncer.round(Round::Recent).await, 3);
    syncer.check();
    {
        let mut world = syncer.world();
        world.broken.clear();
        let event =
            json!({"id": 55, "event": "mentioned", "actor": {"id": 3}, "created_at": "2026-11-24T10:00:00Z"});
        world.issues.get_mut(&2).unwrap().events.insert(55, event);
    }
    assert_eq!(syncer.round(Round::Recent).await, 1, "it is asked for again");
    syncer.check();
}

#[tokio::test]
async fn the_token_is_for_github_alone() {
    let syncer = Syncer::new().await;
    let elsewhere = fake::GitHub::start().await;
    for address in [
        "/rate_limit".to_owned(),
        format!("{}/there", elsewhere.base),
        format!("{}/here", syncer.server.base),
    ] {
        syncer.client.ask(&address, None).await.unwrap();
    }
    let ours = Some("Bearer token".to_owned());
    assert_eq!(syncer.world().tokens, [ours.clone(), ours]);
    assert_eq!(elsewhere.world().tokens, [None]);
}

#[tokio::test]
async fn labels_and_milestones_may_be_renamed_and_deleted() {
    let mut syncer = Syncer::new().await;
    let (label, other, milestone) = {
        let mut world = syncer.world();
        (world.label("a"), world.label("b"), world.milestone("m"))
    };
    syncer.round(Round::Recent).await;
    syncer.check();
    {
        let mut world = syncer.world();
        world.labels.insert(label, "A".to_owned());
        world.labels.remove(&other);
        world.milestones.insert(milestone, ("M".to_owned(), true));
    }
    assert_eq!(syncer.round(Round::Recent).await, 2);
    syncer.check();
    syncer.world().milestones.clear();
    assert_eq!(syncer.round(Round::Recent).await, 1);
    syncer.check();
}

#[tokio::test]
async fn what_was_read_and_not_logged_is_read_again() {
    let mut syncer = Syncer::new().await;
    syncer.world().open("a", "");
    syncer.round(Round::Recent).await;
    syncer.round(Round::Recent).await;
    syncer.world().edit(1, |issue| issue.closed = true);
    let died = syncer.try_round(Round::Recent, 0).await.unwrap_err();
    assert!(matches!(died, GitHubError::Log(_)), "{died}");
    assert_eq!(syncer.round(Round::Recent).await, 1);
    syncer.check();
}

#[tokio::test]
async fn a_question_that_was_too_much_is_asked_again() {
    let mut syncer = Syncer::new().await;
    {
        let mut world = syncer.world();
        world.open("a", "");
        world.limited = 3;
    }
    assert_eq!(syncer.round(Round::Recent).await, 1);
    let statuses: Vec<u16> = syncer.asked().iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses[..4], [403, 403, 403, 200]);
    syncer.check();
}

#[tokio::test]
async fn a_repository_without_issues_says_so() {
    let mut syncer = Syncer::new().await;
    syncer.world().disabled = true;
    let why = syncer.try_round(Round::Recent, 9).await.unwrap_err();
    assert!(
        matches!(why, GitHubError::Trouble(Trouble::Disabled { .. })),
        "{why}"
    );
    // And goes on when it has some.
    syncer.world().disabled = false;
    syncer.world().open("a", "");
    syncer.round(Round::Recent).await;
    syncer.check();
}

/// One of them, `percent` times in a hundred.
fn pick(random: &mut Random, from: &[i64], percent: u64) -> Option<i64> {
    let at = random.below(from.len().max(1) as u64) as usize;
    from.get(at).copied().filter(|_| random.chance(percent))
}

/// Something happens in the repository.
fn happen(world: &mut World, random: &mut Random) {
    world.now += i64::from(random.chance(50));
    let numbers: Vec<i64> = world.issues.keys().copied().collect();
    let labels: Vec<i64> = world.labels.keys().copied().collect();
    let milestones: Vec<i64> = world.milestones.keys().copied().collect();
    let Some(number) = pick(random, &numbers, 80) else {
        world.open("new", "body");
        return;
    };
    let now = world.now;
    match random.below(11) {
        0 => drop(world.comment(number, "said")),
        1 => world.event(number, "mentioned", json!({})),
        2 => world.edit(number, |issue| {
            issue.closed = !issue.closed;
            issue.closed_at = issue.closed.then_some(now).or(issue.closed_at);
        }),
        3 => {
            let label = pick(random, &labels, 66);
            let label = label.unwrap_or_else(|| world.label("label"));
            world.edit(number, |issue| {
                let _ = issue.labels.insert(label) || issue.labels.remove(&label);
            });
        }
        4 => {
            let milestone = pick(random, &milestones, 66);
            let milestone = milestone.unwrap_or_else(|| world.milestone("milestone"));
            world.edit(number, |issue| {
                issue.milestone = issue.milestone.xor(Some(milestone))
            });
        }
        5 => world.edit(number, |issue| {
            let _ = issue.assignees.insert(5) || issue.assignees.remove(&5);
        }),
        6 => world.edit(number, |issue| {
            for comment in issue.comments.values_mut().take(1) {
                comment.body.push('!');
                comment.updated = now;
            }
        }),
        7 => world.edit(number, |issue| {
            issue.comments.pop_first();
        }),
        8 => world.edit(number, |issue| issue.body = None),
        9 => world.edit(number, |issue| issue.locked = !issue.locked),
        _ => {
            if world.issues[&number].pull_request {
                world.review(number, "APPROVED");
            } else if world.issues[&number].events.is_empty() {
                world.issues.remove(&number);
                world.deleted.insert(number);
            }
        }
    }
}

#[tokio::test]
async fn whatever_happens_the_log_comes_to_say_it() {
    for seed in 1..=8 {
        let mut random = Random::new(seed);
        let mut syncer = Syncer::new().await;
        syncer.world().page = 3;
        for _ in 0..6 {
            {
                let mut world = syncer.world();
                (0..random.below(30)).for_each(|_| happen(&mut world, &mut random));
                // And some of it while we look.
                let mut meddler = Random::new(seed + 1000);
                world.meddle(move |world, _| {
                    if meddler.chance(25) {
                        happen(world, &mut meddler);
                    }
                });
            }
            // Dies in the middle at times.
            let room = if random.chance(50) {
                random.below(5) as usize
            } else {
                usize::MAX / 2
            };
            let died = syncer.try_round(Round::Recent, room).await;
            assert!(matches!(died, Ok(_) | Err(GitHubError::Log(_))), "{died:?}");
            if random.chance(50) {
                syncer.restart();
            }
        }
        syncer.world().meddle(|_, _| {});
        syncer.round(Round::Recent).await;
        syncer.round(Round::Full).await;
        eprintln!("seed {seed}");
        syncer.check();
        // What was asked in the second when it changed is asked once more; then there is peace.
        syncer.round(Round::Recent).await;
        assert_eq!(syncer.round(Round::Recent).await, 0, "seed {seed}");
    }
}
