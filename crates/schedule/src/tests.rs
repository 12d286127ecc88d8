//! Scripts: what comes in, and what comes of it. `history` plays random ones.

mod history;

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ids::{BuildId, Now, Timestamp};

use crate::order::{Late, Rank, Turn};
use crate::{Action, Class, Input, Limits, Reason, Request, Scheduler, Waiting};

/// Plays `TIME INPUT -> WHAT COMES OF IT` line by line. Times are since the start of the process.
///
/// Inputs: `request BUILD TYPE [CLASS] [commit=N] [builder=B] [max=N] [avoid=M,M] [usual=T]
/// [asked=T] [after=T]`, `asked` before and `after` behind what the wall clock shows; post-submit
/// unless a class is named. `withdraw BUILD`, `idle M TYPE`, `busy M TYPE BUILDER BUILD T [usual=T]`
/// for T so far, `gone M`, `pause WHY`, `resume`, `tick`. No inputs: `clock T` moves the wall clock,
/// `explain` and `deadline` ask.
fn check(script: &str) {
    check_with(
        Limits {
            wait_limit: Duration::from_secs(12 * 3600),
            ..Limits::default()
        },
        script,
    );
}

fn check_with(limits: Limits, script: &str) {
    let mut scheduler = Scheduler::new(limits);
    let mut shift = 0;
    let (mut wanted, mut found) = (String::new(), String::new());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (left, right) = line.split_once("->").expect("a line has an arrow");
        let words: Vec<&str> = left.split_whitespace().collect();
        let mono = Duration::from_secs(seconds(words[0]).unsigned_abs());
        let wall = Timestamp::from_secs(1_000_000 + seconds(words[0]) + shift);
        let now = Now { mono, wall };
        let outcome = match words[1] {
            "clock" => {
                shift += seconds(words[2]);
                String::new()
            }
            "explain" => {
                let all = scheduler.explain(now);
                all.iter()
                    .map(|waiting| show_waiting(now, waiting))
                    .collect::<Vec<_>>()
                    .join(", ")
            }
            "deadline" => scheduler.next_deadline(now).map_or("none".into(), show_time),
            _ => {
                let actions = scheduler.handle(now, input(wall, &words[1..]));
                actions.iter().map(show_action).collect::<Vec<_>>().join(", ")
            }
        };
        writeln!(wanted, "{} -> {}", words.join(" "), right.trim()).expect("a string takes all");
        writeln!(found, "{} -> {outcome}", words.join(" ")).expect("a string takes all");
    }
    assert_eq!(wanted, found, "\nwanted:\n{wanted}\nfound:\n{found}");
}

fn input(wall: Timestamp, words: &[&str]) -> Input {
    let build = |word: &str| BuildId(word.trim_start_matches('b').parse().expect("b and a number"));
    let option = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
    let usual = option("usual=").map(|text| Duration::from_secs(seconds(text).unsigned_abs()));
    let shifted = |by: i64| Timestamp::from_secs(wall.as_secs() + by);
    match words[0] {
        "request" => {
            let class = words.iter().find_map(|word| match *word {
                "urgent" => Some(Class::Urgent),
                "interactive" => Some(Class::Interactive),
                "try" => Some(Class::Try),
                _ => None,
            });
            let names = option("avoid=").into_iter().flat_map(|names| names.split(','));
            Input::Requested(Request {
                build: build(words[1]),
                builder: option("builder=")
                    .unwrap_or("any")
                    .parse()
                    .expect("a builder name"),
                repo: "widget".parse().expect("a repository name"),
                host_type: words[2].parse().expect("a host type"),
                class: class.unwrap_or(Class::PostSubmit),
                commit_time: Timestamp::from_secs(option("commit=").map_or(0, seconds)),
                requested: shifted(-option("asked=").map_or(0, seconds)),
                not_before: option("after=").map(|text| shifted(seconds(text))),
                avoid: names.map(|name| name.parse().expect("a machine name")).collect(),
                max_at_once: option("max=").map(|max| max.parse().expect("a count")),
                usual,
            })
        }
        "withdraw" => Input::Withdrawn {
            build: build(words[1]),
        },
        "idle" => Input::Idle {
            machine: words[1].parse().expect("a machine name"),
            host_type: words[2].parse().expect("a host type"),
        },
        "busy" => Input::Busy {
            machine: words[1].parse().expect("a machine name"),
            host_type: words[2].parse().expect("a host type"),
            builder: words[3].parse().expect("a builder name"),
            build: build(words[4]),
            since: shifted(-seconds(words[5])),
            usual,
        },
        "gone" => Input::Gone {
            machine: words[1].parse().expect("a machine name"),
        },
        "pause" => Input::Paused {
            why: words[1..].join(" "),
        },
        "resume" => Input::Resumed,
        "tick" => Input::Tick,
        other => panic!("no input is called `{other}`"),
    }
}

/// `90`, `90s`, `5m`, `-2h`, `3d`.
fn seconds(text: &str) -> i64 {
    let unit = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        Some(_) | None => 1,
    };
    let number = text.trim_end_matches(['s', 'm', 'h', 'd']);
    number.parse::<i64>().expect("a number with or without a unit") * unit
}

fn show_time(time: Duration) -> String {
    let secs = time.as_secs();
    let units = [("d", 24 * 3600), ("h", 3600), ("m", 60)];
    let unit = units
        .into_iter()
        .find(|(_, unit)| secs > 0 && secs.is_multiple_of(*unit));
    unit.map_or(format!("{secs}s"), |(name, unit)| {
        format!("{}{name}", secs / unit)
    })
}

fn show_action(action: &Action) -> String {
    match action {
        Action::Assign { build, machine } => format!("assign b{build} {machine}"),
        Action::GiveUp { build, waited } => format!("give up b{build} {}", show_time(*waited)),
    }
}

fn show_waiting(now: Now, waiting: &Waiting) -> String {
    let Waiting {
        build,
        reason,
        starts,
        ..
    } = waiting;
    let reason = match reason {
        Reason::NoMachine => "no machine".into(),
        Reason::AllBusy { machines } => format!("all {machines} busy"),
        Reason::BackOff { until } => format!("back-off {}", show_time(until.since(now.wall))),
        Reason::BuilderLimit { running, max } => format!("limit {running}/{max}"),
        Reason::Avoiding { machines } => format!("avoids {machines}"),
        Reason::Paused { why } => format!("paused for {why}"),
    };
    let starts = starts.map_or("?".into(), |starts| show_time(starts.since(now.wall)));
    format!("b{build} {reason} @{starts}")
}

#[test]
fn a_build_starts_at_once_when_a_machine_of_its_type_is_free() {
    check(
        "
        0s idle m1 linux        ->
        1s request b1 linux     -> assign b1 m1
        2s request b2 linux     ->
        3s idle w1 windows      ->
        4s request b3 windows   -> assign b3 w1
        5s idle m1 linux        -> assign b2 m1
        ",
    );
}

#[test]
fn classes_go_in_order_and_all_but_post_submit_by_age() {
    check(
        "
        0s request b1 linux commit=50           ->
        1s request b2 linux try                 ->
        2s request b3 linux interactive         ->
        3s request b4 linux urgent              ->
        4s request b5 linux urgent asked=1h     ->
        5s request b6 linux try asked=1h        ->
        6s request b7 linux interactive asked=1h ->
        7s idle m1 linux -> assign b5 m1
        8s idle m1 linux -> assign b4 m1
        9s idle m1 linux -> assign b7 m1
        10s idle m1 linux -> assign b3 m1
        11s idle m1 linux -> assign b6 m1
        12s idle m1 linux -> assign b2 m1
        13s idle m1 linux -> assign b1 m1
        14s idle m1 linux ->
        ",
    );
}

#[test]
fn of_post_submit_builds_the_newest_commit_goes_first_and_every_fourth_time_the_oldest_request() {
    check(
        "
        0s request b1 linux commit=1 ->
        1s request b2 linux commit=2 ->
        2s request b3 linux commit=3 builder=other ->
        3s request b4 linux commit=4 ->
        4s request b5 linux commit=5 builder=other ->
        5s request b6 linux commit=6 ->
        6s request b7 linux commit=6 asked=1m ->
        10s idle m1 linux -> assign b7 m1
        11s idle m1 linux -> assign b6 m1
        12s idle m1 linux -> assign b5 m1
        13s idle m1 linux -> assign b1 m1
        14s idle m1 linux -> assign b4 m1
        ",
    );
}

#[test]
fn grants_to_other_classes_do_not_count_for_the_oldest() {
    check(
        "
        0s request b1 linux commit=1 ->
        1s request b2 linux commit=2 ->
        2s request b3 linux try ->
        3s request b4 linux try ->
        4s request b5 linux try ->
        5s idle m1 linux -> assign b3 m1
        6s idle m1 linux -> assign b4 m1
        7s idle m1 linux -> assign b5 m1
        8s idle m1 linux -> assign b2 m1
        ",
    );
}

#[test]
fn a_build_that_waited_too_long_goes_first_in_its_class_but_not_before_a_better_class() {
    check(
        "
        0s request b1 linux commit=1 ->
        1m request b2 linux commit=2 ->
        5h request b3 linux commit=3 ->
        6h request b4 linux try ->
        6h idle m1 linux -> assign b4 m1
        6h idle m1 linux -> assign b1 m1
        6h idle m1 linux -> assign b3 m1
        361m idle m1 linux -> assign b2 m1
        ",
    );
}

#[test]
fn an_old_build_gets_its_turn_however_many_newer_commits_come() {
    let mut scheduler = Scheduler::new(Limits::default());
    let mut turn = |n: i64, words: String| {
        let now = Now {
            mono: Duration::from_secs(n.unsigned_abs()),
            wall: Timestamp::from_secs(n),
        };
        scheduler.handle(now, input(now.wall, &words.split(' ').collect::<Vec<_>>()))
    };
    turn(0, "request b1 linux commit=1".into());
    turn(0, "request b2 linux commit=2".into());
    let mut order = Vec::new();
    for n in 10..22 {
        turn(n, format!("request b{n} linux commit={n}"));
        order.extend(turn(n, "idle m1 linux".into()).iter().map(show_action));
    }
    let place = |build: &str| {
        order
            .iter()
            .position(|text| text.starts_with(&format!("assign {build} ")))
    };
    assert_eq!((place("b1"), place("b2")), (Some(3), Some(7)), "{order:?}");
}

#[test]
fn a_builder_runs_no_more_at_once_than_it_may_and_others_pass() {
    check(
        "
        0s idle m1 linux ->
        0s idle m2 linux ->
        0s idle w1 windows ->
        1s request b1 linux builder=slow max=1 commit=9 -> assign b1 m1
        2s request b2 linux builder=slow max=1 commit=8 ->
        3s request b3 linux builder=fast commit=1       -> assign b3 m2
        4s request b4 windows builder=slow max=1        ->
        5s explain -> b2 limit 1/1 @?, b4 limit 1/1 @?
        6s gone m1       -> assign b4 w1
        7s idle m2 linux ->
        8s request b5 linux builder=slow max=2 -> assign b2 m2
        9s idle m3 linux ->
        10s idle w1 windows -> assign b5 m3
        ",
    );
}

#[test]
fn builds_found_at_work_at_start_count_for_their_builder() {
    check(
        "
        0s busy m1 linux slow b1 10m ->
        0s idle m2 linux             ->
        1s request b2 linux builder=slow max=1 ->
        2s idle m1 linux             -> assign b2 m2
        ",
    );
}

#[test]
fn a_build_found_at_work_does_not_wait() {
    check(
        "
        0s request b1 linux ->
        1s busy m1 linux any b1 10m ->
        2s idle m2 linux ->
        3s explain ->
        ",
    );
}

#[test]
fn back_off_holds_a_build_and_nobody_else() {
    check(
        "
        0s idle m1 linux ->
        0s request b1 linux urgent after=30s -> 
        0s deadline -> 30s
        1s explain -> b1 back-off 29s @29s
        2s request b2 linux -> assign b2 m1
        3s idle m1 linux ->
        30s tick -> assign b1 m1
        30s deadline -> none
        ",
    );
}

#[test]
fn a_clock_set_back_makes_no_back_off_longer_and_one_set_forward_ends_it() {
    check(
        "
        0s idle m1 linux ->
        0s request b1 linux after=30s ->
        1s clock -3d ->
        2s deadline -> 30s
        2s explain -> b1 back-off 28s @28s
        30s tick -> assign b1 m1
        31s idle m1 linux ->
        32s request b2 linux after=30s ->
        33s clock 5d ->
        33s deadline -> 33s
        33s tick -> assign b2 m1
        ",
    );
}

#[test]
fn a_back_off_that_a_wrong_clock_left_behind_ends_all_the_same() {
    check(
        "
        0s idle m1 linux ->
        0s request b1 linux after=9d ->
        0s deadline -> 6h
        6h tick -> assign b1 m1
        ",
    );
}

#[test]
fn a_machine_that_lost_the_build_is_avoided_for_a_while_if_there_is_another() {
    check(
        "
        0s idle m1 linux ->
        0s busy m2 linux any b9 1m usual=10m ->
        1s request b1 linux avoid=m1 usual=1m -> 
        2s explain -> b1 avoids 1 @119s
        2s deadline -> 121s
        3s request b2 linux usual=1m -> assign b2 m1
        4s explain -> b1 all 2 busy @59s
        5s idle m2 linux -> assign b1 m2
        6s idle m1 linux ->
        7s request b3 linux avoid=m1 after=1m ->
        67s tick -> 
        186s tick -> 
        187s tick -> assign b3 m1
        ",
    );
}

#[test]
fn a_machine_that_lost_the_build_is_taken_when_it_is_the_only_one() {
    check(
        "
        0s idle m1 linux ->
        1s request b1 linux avoid=m1 -> assign b1 m1
        2s idle m1 linux ->
        3s busy m2 linux any b9 1m   ->
        4s idle w1 windows           ->
        5s request b2 linux avoid=m1,w1,x9 ->
        6s gone m2                   -> assign b2 m1
        ",
    );
}

#[test]
fn after_the_choice_another_machine_is_still_preferred() {
    check(
        "
        0s request b1 linux avoid=m1 ->
        5m pause disk ->
        5m idle m1 linux ->
        5m idle m2 linux ->
        6m resume -> assign b1 m2
        ",
    );
}

#[test]
fn the_machine_that_has_been_free_longest_is_taken() {
    check(
        "
        0s idle m2 linux ->
        1s idle m1 linux ->
        2s idle m2 linux ->
        3s request b1 linux -> assign b1 m2
        4s idle m2 linux ->
        5s request b2 linux -> assign b2 m1
        ",
    );
}

#[test]
fn what_is_said_twice_or_of_unknown_machines_and_builds_changes_nothing() {
    check(
        "
        0s gone m1       ->
        1s withdraw b1   ->
        2s idle m1 linux ->
        3s idle m1 linux ->
        4s request b1 linux -> assign b1 m1
        5s request b2 linux ->
        6s withdraw b1   ->
        7s withdraw b2   ->
        8s withdraw b2   ->
        9s resume        ->
        10s idle m1 linux ->
        11s gone m1      ->
        12s gone m1      ->
        13s request b3 linux ->
        ",
    );
}

#[test]
fn a_machine_that_comes_back_as_another_type_serves_that_one() {
    check(
        "
        0s idle m1 linux   ->
        1s idle m1 windows ->
        2s request b1 linux ->
        3s request b2 windows -> assign b2 m1
        4s explain -> b1 no machine @?
        ",
    );
}

#[test]
fn a_build_asked_for_again_keeps_its_place_and_takes_the_new_facts() {
    check(
        "
        0s request b1 linux try ->
        1s request b2 linux try ->
        2s request b1 linux try avoid=m1 usual=5m ->
        3s explain -> b1 no machine @?, b2 no machine @?
        4s request b2 linux urgent ->
        5s explain -> b2 no machine @?, b1 no machine @?
        6s request b1 windows interactive ->
        7s explain -> b2 no machine @?, b1 no machine @?
        8s idle m1 windows -> assign b1 m1
        ",
    );
}

#[test]
fn a_build_asked_for_again_keeps_its_back_off_unless_that_is_another() {
    check(
        "
        0s idle m1 linux ->
        0s request b1 linux after=1m ->
        10s clock -1h ->
        10s request b1 linux after=3650s ->
        11s deadline -> 1m
        12s request b1 linux after=2m ->
        13s deadline -> 132s
        14s request b1 linux -> assign b1 m1
        ",
    );
}

#[test]
fn a_build_asked_for_again_while_at_work_is_in_line_and_its_machine_stays_busy() {
    check(
        "
        0s idle m1 linux ->
        1s request b1 linux max=1 -> assign b1 m1
        2s request b1 linux max=1 avoid=m1 ->
        3s explain -> b1 all 1 busy @?
        4s idle m2 linux -> assign b1 m2
        5s request b2 linux max=1 ->
        6s idle m1 linux ->
        7s explain -> b2 limit 1/1 @?
        8s idle m2 linux -> assign b2 m1
        ",
    );
}

#[test]
fn nothing_starts_while_paused_and_everything_fitting_does_after() {
    check(
        "
        0s pause low disk    ->
        1s idle m1 linux     ->
        1s idle m2 linux     ->
        2s request b1 linux  ->
        3s request b2 linux try ->
        4s explain           -> b2 paused for low disk @?, b1 paused for low disk @?
        5s pause drain       ->
        6s explain           -> b2 paused for drain @?, b1 paused for drain @?
        7s resume            -> assign b2 m1, assign b1 m2
        ",
    );
}

#[test]
fn a_build_that_no_machine_took_in_time_is_given_up() {
    check(
        "
        0s request b1 linux ->
        1s request b2 linux ->
        2s request b2 linux ->
        719m tick ->
        719m deadline -> 12h
        12h tick -> give up b1 12h
        12h explain -> b2 no machine @?
        13h idle m1 linux -> assign b2 m1
        13h deadline -> none
        ",
    );
}

#[test]
fn a_clock_that_jumps_gives_nothing_up() {
    check(
        "
        0s request b1 linux ->
        1h clock 30d ->
        1h tick ->
        1h request b2 linux asked=30d ->
        2h clock -60d ->
        2h tick ->
        429m tick -> give up b2 389m
        12h tick -> give up b1 12h
        "
        .replace(
            "429m tick -> give up b2 389m",
            "419m tick ->\n7h tick -> give up b2 12h",
        )
        .as_str(),
    );
}

#[test]
fn what_was_waited_before_a_restart_counts_up_to_half_of_the_limit() {
    check(
        "
        0s request b1 linux asked=5h  ->
        0s request b2 linux asked=11h ->
        0s request b3 linux asked=-3d ->
        6h tick -> give up b2 12h
        7h tick -> give up b1 12h
        12h tick -> give up b3 12h
        ",
    );
}

#[test]
fn a_request_from_the_future_has_the_place_of_one_made_when_it_comes() {
    check(
        "
        0s request b1 linux try asked=-3d ->
        1s request b2 linux try ->
        2s idle m1 linux -> assign b1 m1
        ",
    );
}

#[test]
fn each_wait_has_its_reason_and_the_first_thing_that_stands_in_the_way_is_told() {
    check(
        "
        0s idle m1 linux ->
        1s request b1 linux builder=one max=1 usual=100s -> assign b1 m1
        2s request b2 linux builder=one max=1 usual=100s ->
        3s request b3 linux usual=50s ->
        4s request b4 linux after=10m builder=one max=1 ->
        5s request b5 arm after=10m ->
        11s explain -> b5 no machine @?, b3 all 1 busy @90s, b2 limit 1/1 @140s, b4 back-off 593s @593s
        "
        .replace(
            "b3 all 1 busy @90s, b2 limit 1/1 @140s",
            "b2 limit 1/1 @90s, b3 all 1 busy @190s",
        )
        .as_str(),
    );
}

#[test]
fn the_start_is_reckoned_from_what_runs_and_what_is_ahead() {
    check(
        "
        0s busy m1 linux any b91 4m usual=5m ->
        0s busy m2 linux any b92 1m usual=5m ->
        0s busy m3 linux any b93 1h usual=10m ->
        0s request b1 linux try usual=10m ->
        1s request b2 linux try ->
        2s request b3 linux try usual=1m ->
        3s request b4 linux try usual=1m ->
        0s explain -> b1 all 3 busy @0s, b2 all 3 busy @1m, b3 all 3 busy @4m, b4 all 3 busy @5m
        30s clock 20d ->
        30s explain -> b1 all 3 busy @0s, b2 all 3 busy @30s, b3 all 3 busy @210s, b4 all 3 busy @270s
        ",
    );
}

#[test]
fn the_start_of_a_build_at_its_builders_limit_comes_after_one_that_runs() {
    check(
        "
        0s busy m1 linux one b91 0s usual=10m ->
        0s busy m2 linux any b92 0s usual=1m ->
        1s request b1 linux try builder=one max=1 usual=2m ->
        2s request b2 linux try builder=one max=1 usual=2m ->
        3s request b3 linux try usual=1m ->
        0s explain -> b3 all 2 busy @1m, b1 limit 1/1 @10m, b2 limit 1/1 @12m
        ",
    );
}

#[test]
fn of_what_nothing_is_known_no_start_is_told() {
    check(
        "
        0s busy m1 linux any b91 0s ->
        0s request b1 linux try ->
        1s explain -> b1 all 1 busy @?
        ",
    );
}

#[test]
fn the_deadline_is_the_first_thing_that_will_happen() {
    check(
        "
        0s deadline -> none
        0s request b1 linux -> 
        0s deadline -> 6h
        6h tick ->
        6h deadline -> 12h
        6h request b2 linux after=1m ->
        6h deadline -> 361m
        361m tick ->
        361m deadline -> 12h
        6h withdraw b1 ->
        361m deadline -> 12h
        12h tick ->
        12h deadline -> 18h
        ",
    );
}

#[test]
fn limits_of_any_size_do_no_harm() {
    let most = Limits {
        wait_limit: Duration::MAX,
        max_wait: Duration::MAX,
        oldest_every: 0,
        avoid_for: Duration::MAX,
    };
    check_with(
        most,
        "
        0s busy m2 linux any b9 0s ->
        0s idle m1 linux ->
        0s request b1 linux avoid=m1 after=1s asked=1d ->
        1s tick ->
        9d idle m2 linux -> assign b1 m2
        ",
    );
    let least = Limits {
        wait_limit: Duration::ZERO,
        max_wait: Duration::ZERO,
        oldest_every: 1,
        avoid_for: Duration::ZERO,
    };
    check_with(
        least,
        "
        0s busy m2 linux any b9 0s ->
        0s idle m1 linux ->
        0s request b1 linux avoid=m1 after=1s asked=1d -> assign b1 m1
        0s request b2 linux -> give up b2 0s
        ",
    );
}

/// golang/build's clause for release branches compared an item with itself, so that each of two
/// could be before the other.
#[test]
fn of_two_builds_exactly_one_goes_first() {
    let mut ranks = Vec::new();
    for class in [Class::Urgent, Class::Interactive, Class::Try, Class::PostSubmit] {
        for late in [Late::Overdue, Late::InTime] {
            for (commit, place) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
                for build in [1, 2] {
                    let (commit, place) = (Timestamp(commit), Timestamp(place));
                    ranks.push(Rank::new(class, late, commit, place, BuildId(build)));
                }
            }
        }
    }
    // One build has one rank at a time, so of equal ones only the first is kept.
    ranks.sort_unstable();
    ranks.dedup();
    for turn in [Turn::Ranked, Turn::Oldest] {
        let before = |a: &Rank, b: &Rank| turn.compare(a, b) == Ordering::Less;
        for a in &ranks {
            assert!(!before(a, a), "{a:?} before itself");
            for b in &ranks {
                assert!(
                    a == b || before(a, b) != before(b, a),
                    "{turn:?}: {a:?} and {b:?}"
                );
                for c in &ranks {
                    assert!(
                        !(before(a, b) && before(b, c)) || before(a, c),
                        "{turn:?}: {a:?}, {b:?}, {c:?}"
                    );
                }
            }
        }
    }
}

/// Five thousand builds on a thousand machines. Prints the times; a limit would measure the machine.
#[test]
fn a_large_farm_is_served_whole() {
    let mut scheduler = Scheduler::new(Limits::default());
    let wall = |secs: u64| Timestamp::from_secs(1_000_000 + i64::try_from(secs).expect("small"));
    let mut assigned = 0;
    let mut longest = Duration::ZERO;
    let mut total = Duration::ZERO;
    let mut handled = 0;
    let mut send = |scheduler: &mut Scheduler, secs: u64, words: String| {
        let now = Now {
            mono: Duration::from_secs(secs),
            wall: wall(secs),
        };
        let input = input(now.wall, &words.split(' ').collect::<Vec<_>>());
        let began = Instant::now();
        let actions = scheduler.handle(now, input);
        longest = longest.max(began.elapsed());
        total += began.elapsed();
        handled += 1;
        assigned += actions.len();
    };
    for n in 0..5_000 {
        let limit = if n % 50 == 0 { " max=1" } else { "" };
        let words = format!(
            "request b{n} type-{} builder=r{} commit={n} usual=5m{limit}",
            n % 20,
            n % 100
        );
        send(&mut scheduler, n, words);
    }
    for n in 0..1_000 {
        send(&mut scheduler, 5_000, format!("idle m{n} type-{}", n % 20));
    }
    let now = Now {
        mono: Duration::from_secs(5_001),
        wall: wall(5_001),
    };
    let began = Instant::now();
    let explained = scheduler.explain(now);
    let explaining = began.elapsed();
    assert_eq!(explained.len(), scheduler.waiting());
    for round in 0..100 {
        for n in 0..1_000 {
            send(
                &mut scheduler,
                5_300 + round,
                format!("idle m{n} type-{}", n % 20),
            );
        }
    }
    assert_eq!((assigned, scheduler.waiting()), (5_000, 0));
    let mean = total / handled;
    println!(
        "handle: mean {mean:?}, longest {longest:?}; explain of {}: {explaining:?}",
        explained.len()
    );
}
