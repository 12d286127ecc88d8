use std::time::Duration;

use ids::{BuildId, HostType, MachineId, Now, Timestamp};

use crate::*;

/// Lines of `TIME INPUT -> ACTIONS`: `request N CLASS COMMIT [max=K] [avoid=M] [hold=S]` (commit time in
/// seconds), `withdraw N`, `idle M`, `gone M`, `pause`, `resume`, `tick`. All of one host type.
fn check(script: &str) -> Scheduler {
    let mut scheduler = Scheduler::new(Limits {
        oldest_every: 1000,
        ..Limits::default()
    });
    check_with(&mut scheduler, script);
    scheduler
}

fn at(secs: u64) -> Now {
    Now {
        mono: Duration::from_secs(secs),
        wall: Timestamp::from_secs(1_000_000 + secs as i64),
    }
}

fn check_with(scheduler: &mut Scheduler, script: &str) {
    let host_type = || HostType::parse("linux").expect("a host type");
    let machine = |name: &str| MachineId::parse(name).expect("a machine name");
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, wanted) = line.split_once("->").expect("a line has an arrow");
        let words: Vec<&str> = input.split_whitespace().collect();
        let secs = words[0].trim_end_matches('s').parse().expect("seconds");
        let option = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
        let build = |word: &str| BuildId(word.parse().expect("a build number"));
        let input = match words[1] {
            "request" => Input::Requested(Request {
                build: build(words[2]),
                builder: "b".parse().expect("a builder name"),
                repo: "widget".parse().expect("a repository name"),
                host_type: host_type(),
                class: match words[3] {
                    "urgent" => Class::Urgent,
                    "try" => Class::Try,
                    _ => Class::PostSubmit,
                },
                commit_time: Timestamp::from_secs(words[4].parse().expect("a commit time")),
                requested: at(secs).wall,
                not_before: option("hold=").map(|s| at(secs + s.parse::<u64>().expect("seconds")).wall),
                avoid: option("avoid=").map(machine).into_iter().collect(),
                max_at_once: option("max=").map(|max| max.parse().expect("a count")),
                usual: Some(Duration::from_secs(100)),
            }),
            "withdraw" => Input::Withdrawn {
                build: build(words[2]),
            },
            "idle" => Input::Idle {
                machine: machine(words[2]),
                host_type: host_type(),
            },
            "gone" => Input::Gone {
                machine: machine(words[2]),
            },
            "pause" => Input::Paused {
                why: "low disk".into(),
            },
            "resume" => Input::Resumed,
            "tick" => Input::Tick,
            other => panic!("no input {other}"),
        };
        let show = |action: &Action| match action {
            Action::Assign { build, machine } => format!("{build} on {machine}"),
            Action::GiveUp { build, waited } => {
                format!("give up {build} after {} h", waited.as_secs() / 3600)
            }
        };
        let actions = scheduler.handle(at(secs), input);
        assert_eq!(
            actions.iter().map(show).collect::<Vec<_>>().join(", "),
            wanted.trim(),
            "at: {line}"
        );
    }
}

#[test]
fn classes_go_in_order_and_the_newest_commit_first() {
    check(
        "
        0s request 1 post 10  ->
        0s request 2 post 30  ->
        0s request 3 post 20  ->
        1s request 4 try 1    ->
        2s request 5 try 1    ->
        3s request 6 urgent 1 ->
        4s idle m             -> 6 on m
        5s idle m             -> 4 on m
        6s idle m             -> 5 on m
        7s idle m             -> 2 on m
        8s idle m             -> 3 on m
        9s idle m             -> 1 on m
        ",
    );
}

#[test]
fn every_fourth_grant_fills_the_oldest_hole() {
    let mut scheduler = Scheduler::new(Limits::default());
    check_with(
        &mut scheduler,
        "
        0s request 1 post 1  ->
        1s request 2 post 2  ->
        2s request 3 post 3  ->
        3s request 4 post 4  ->
        4s request 5 post 5  ->
        5s idle m            -> 5 on m
        6s idle m            -> 4 on m
        7s idle m            -> 3 on m
        8s idle m            -> 1 on m
        9s idle m            -> 2 on m
        ",
    );
}

#[test]
fn what_waited_too_long_goes_before_newer_commits() {
    check(
        "
        0s     request 1 post 1 ->
        21500s request 2 post 2 ->
        21600s idle m           -> 1 on m
        ",
    );
}

#[test]
fn a_builder_runs_no_more_at_once_than_it_may() {
    let scheduler = check(
        "
        0s idle m                 ->
        0s idle n                 ->
        1s request 1 post 1 max=1 -> 1 on m
        2s request 2 post 2 max=1 ->
        3s withdraw 7             ->
        ",
    );
    let waits = scheduler.explain(at(3));
    assert_eq!(waits.len(), 1);
    assert_eq!(waits[0].reason, Reason::BuilderLimit { running: 1, max: 1 });
    check(
        "
        0s idle m                 ->
        0s idle n                 ->
        1s request 1 post 1 max=1 -> 1 on m
        2s request 2 post 2 max=1 ->
        4s idle m                 -> 2 on m
        ",
    );
}

#[test]
fn a_back_off_holds_a_build_and_a_tick_frees_it() {
    let scheduler = check(
        "
        0s  idle m                   ->
        0s  request 1 post 1 hold=60 ->
        59s tick                     ->
        ",
    );
    assert_eq!(
        scheduler.explain(at(59))[0].reason,
        Reason::BackOff { until: at(60).wall }
    );
    assert_eq!(scheduler.next_deadline(at(59)), Some(Duration::from_secs(60)));
    check("0s idle m ->\n0s request 1 post 1 hold=60 ->\n60s tick -> 1 on m");
}

#[test]
fn a_back_off_from_a_clock_that_jumped_does_not_last_for_ever() {
    check("0s idle m ->\n0s request 1 post 1 hold=864000 ->\n1800s tick -> 1 on m");
}

#[test]
fn a_machine_that_lost_the_build_is_avoided_while_there_is_another() {
    check("0s idle m ->\n0s request 1 post 1 avoid=m -> 1 on m");
    let scheduler = check(
        "
        0s idle n                    ->
        0s request 9 post 9          -> 9 on n
        0s idle m                    ->
        0s request 1 post 1 avoid=m  ->
        9s tick                      ->
        ",
    );
    assert_eq!(
        scheduler.explain(at(9))[0].reason,
        Reason::Avoiding { machines: 1 }
    );
    check(
        "
        0s   idle n                    ->
        0s   request 9 post 9          -> 9 on n
        0s   idle m                    ->
        0s   request 1 post 1 avoid=m  ->
        9s   idle n                    -> 1 on n
        ",
    );
    check(
        "
        0s   idle n                    ->
        0s   request 9 post 9          -> 9 on n
        0s   idle m                    ->
        0s   request 1 post 1 avoid=m  ->
        120s tick                      -> 1 on m
        ",
    );
}

#[test]
fn nothing_starts_while_paused() {
    let scheduler = check("0s idle m ->\n0s pause ->\n1s request 1 post 1 ->\n2s tick ->");
    assert_eq!(
        scheduler.explain(at(2))[0].reason,
        Reason::Paused {
            why: "low disk".into()
        }
    );
    check("0s idle m ->\n0s pause ->\n1s request 1 post 1 ->\n2s resume -> 1 on m");
}

#[test]
fn a_build_that_no_machine_takes_is_given_up() {
    let scheduler = check("0s request 1 post 1 ->\n86399s tick ->");
    assert_eq!(scheduler.explain(at(5))[0].reason, Reason::NoMachine);
    assert_eq!(scheduler.explain(at(5))[0].starts, None);
    check("0s request 1 post 1 ->\n86400s tick -> give up 1 after 24 h\n86401s idle m ->");
}

#[test]
fn estimates_follow_the_line() {
    let scheduler = check(
        "
        0s  idle m             ->
        0s  request 1 post 9   -> 1 on m
        10s request 2 post 8   ->
        10s request 3 post 7   ->
        ",
    );
    let waits = scheduler.explain(at(20));
    let starts: Vec<_> = waits
        .iter()
        .map(|wait| (wait.build.0, wait.ahead, wait.starts))
        .collect();
    assert_eq!(starts, [(2, 0, Some(at(100).wall)), (3, 1, Some(at(200).wall))]);
    assert_eq!(waits[0].reason, Reason::AllBusy { machines: 1 });
}

#[test]
fn a_machine_that_left_is_not_given_away() {
    check(
        "0s idle m ->\n1s gone m ->\n1s gone m ->\n2s request 1 post 1 ->\n3s idle m -> 1 on m\n4s request 2 post 2 ->\n5s idle m -> 2 on m",
    );
}

#[test]
fn a_request_made_again_keeps_its_place_and_is_one() {
    let scheduler =
        check("0s request 1 post 1 ->\n50000s request 1 post 1 ->\n86400s tick -> give up 1 after 24 h");
    assert_eq!(scheduler.waiting(), 0);
}
