use proptest::prelude::*;

use super::*;
use crate::manifest::Binary;

/// Runs a script: lines of `SECONDS EVENT -> ACTION, ACTION`.
///
/// Releases are written `SERIAL`; version is 1.SERIAL.0 unless said as `SERIAL=A.B.C`, the minimum 0.0.0
/// unless said as `min A.B.C`.
fn check(kept: Kept, script: &str) {
    let mut stage = Stage::new(kept, Duration::from_secs(30));
    let lines = script.trim().lines().map(str::trim);
    let mut got = String::new();
    for line in lines.clone() {
        let (left, _) = line.split_once("->").expect("an arrow");
        let (at, event) = left.trim().split_once(' ').expect("a time");
        let at = Duration::from_secs(at.parse().expect("seconds"));
        let actions = stage.handle(at, event_of(event.trim()));
        let words: Vec<String> = actions.iter().filter_map(word_of).collect();
        got += format!("{left}-> {}", words.join(", ")).trim_end();
        got += "\n";
    }
    let wanted: String = lines.map(|line| format!("{line}\n")).collect();
    assert_eq!(got, wanted);
}

fn event_of(text: &str) -> Event {
    let why = || "why".to_owned();
    match text.split(' ').collect::<Vec<_>>()[..] {
        ["began"] => Event::Began,
        ["offered", of] => Event::Offered(Offer {
            release: release(of),
            minimum: version("0.0.0"),
        }),
        ["offered", of, "min", minimum] => Event::Offered(Offer {
            release: release(of),
            minimum: version(minimum),
        }),
        ["unanswered"] => Event::Unanswered(why()),
        ["unusable"] => Event::Unusable(why()),
        ["taken"] => Event::Taken,
        ["not-taken"] => Event::NotTaken(why()),
        ["proven"] => Event::Proven,
        ["halted"] => Event::Ended(End::Halted),
        ["orphaned"] => Event::Ended(End::Orphaned),
        ["refused"] => Event::Ended(End::Refused),
        ["fell"] => Event::Ended(End::Fell(why())),
        ["waited"] => Event::Waited,
        _ => panic!("no event `{text}`"),
    }
}

fn word_of(action: &Action) -> Option<String> {
    Some(match action {
        Action::Ask => "ask".to_owned(),
        Action::Take(release) => format!("take {}", release.serial),
        Action::Run(release) => format!("run {}", release.serial),
        Action::KeepAsGood(release) => format!("good {}", release.serial),
        Action::Wait(pause) => format!("wait {}", pause.as_secs()),
        Action::Exit(code) => format!("exit {code}"),
        Action::Tell(_) => return None,
    })
}

fn version(text: &str) -> Version {
    Version::parse(text).expect("a version")
}

fn release(text: &str) -> Release {
    let (serial, version) = match text.split_once('=') {
        Some((serial, version)) => (serial, version.to_owned()),
        None => (text, format!("1.{text}.0")),
    };
    Release {
        serial: serial.parse().expect("a serial"),
        version: self::version(&version),
        binary: Binary {
            size: 1,
            sha256: [0; 32],
            name: format!("b{serial}"),
        },
    }
}

fn kept(latest: Option<&str>, good: Option<&str>, minimum: &str) -> Kept {
    let of = |text: Option<&str>| text.map(release);
    Kept {
        floor: of(latest.or(good)).map(|release| Floor {
            serial: release.serial,
            minimum: version(minimum),
        }),
        latest: of(latest),
        good: of(good),
    }
}

#[test]
fn a_new_machine_asks_until_it_is_answered_and_runs_what_it_is_given() {
    check(
        Kept::default(),
        "
0 began -> ask
10 unanswered -> wait 1
11 waited -> ask
21 unanswered -> wait 2
23 waited -> ask
60 unanswered -> wait 4
64 waited -> ask
64 unusable -> wait 8
72 waited -> ask
72 offered 1 -> take 1
73 not-taken -> wait 16
89 waited -> ask
89 offered 1 -> take 1
90 taken -> run 1
150 proven -> good 1
",
    );
}

#[test]
fn the_last_good_one_waits_a_while_for_the_network_and_then_runs() {
    check(
        kept(Some("2"), Some("1"), "0.0.0"),
        "
0 began -> ask
10 unanswered -> wait 1
11 waited -> ask
21 unanswered -> wait 2
23 waited -> ask
33 unanswered -> run 2
",
    );
}

#[test]
fn what_cannot_be_used_is_not_waited_for() {
    for event in ["unusable", "offered 1"] {
        check(
            kept(Some("2"), Some("2"), "0.0.0"),
            &format!("0 began -> ask\n0 {event} -> run 2"),
        );
    }
    check(
        kept(Some("2"), None, "0.0.0"),
        "
0 began -> ask
0 offered 3 -> take 3
9 not-taken -> run 2
",
    );
}

#[test]
fn an_older_version_is_run_when_it_is_signed_anew() {
    check(
        kept(Some("5=2.0.0"), Some("5=2.0.0"), "1.0.0"),
        "
0 began -> ask
0 offered 6=1.0.0 -> take 6
1 taken -> run 6
",
    );
}

#[test]
fn what_is_below_the_minimum_is_not_run_even_if_there_is_nothing_else() {
    check(
        kept(Some("2=1.0.0"), Some("2=1.0.0"), "0.0.0"),
        "
0 began -> ask
0 offered 3=1.1.0 min 1.1.0 -> take 3
9 not-taken -> wait 1
10 waited -> ask
10 unanswered -> wait 2
99 waited -> ask
",
    );
    check(
        kept(Some("2=1.0.0"), None, "1.1.0"),
        "
0 began -> ask
0 unusable -> wait 1
",
    );
}

#[test]
fn a_new_one_that_falls_three_times_gives_way_to_the_last_good_one_until_a_newer_comes() {
    check(
        kept(Some("1"), Some("1"), "0.0.0"),
        "
0 began -> ask
0 offered 2 -> take 2
1 taken -> run 2
2 fell -> wait 1
3 waited -> ask
3 offered 2 -> take 2
3 taken -> run 2
4 fell -> wait 2
6 waited -> ask
6 offered 2 -> take 2
6 taken -> run 2
7 fell -> wait 4
11 waited -> ask
11 offered 2 -> take 2
11 taken -> run 1
71 proven ->
90 fell -> wait 1
91 waited -> ask
91 offered 2 -> take 2
91 taken -> run 1
99 orphaned -> wait 1
100 waited -> ask
100 offered 3 -> take 3
101 taken -> run 3
",
    );
}

#[test]
fn without_another_the_one_that_falls_is_tried_ever_more_slowly() {
    let mut script = "0 began -> ask\n0 offered 1 -> take 1\n0 taken -> run 1\n".to_owned();
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        script +=
            &format!("0 fell -> wait {pause}\n0 waited -> ask\n0 offered 1 -> take 1\n0 taken -> run 1\n");
    }
    check(Kept::default(), &script);
}

#[test]
fn how_it_ended_says_what_comes_next() {
    let begin = "0 began -> ask\n0 offered 1 -> take 1\n0 taken -> run 1\n";
    check(Kept::default(), &format!("{begin}5 halted -> good 1, exit 0"));
    check(Kept::default(), &format!("{begin}5 orphaned -> good 1, wait 1"));
    let mut script = begin.to_owned();
    for pause in [300, 600, 1200, 1800, 1800] {
        script +=
            &format!("0 refused -> wait {pause}\n0 waited -> ask\n0 offered 1 -> take 1\n0 taken -> run 1\n");
    }
    script += "60 proven -> good 1\n90 refused -> wait 300\n";
    check(Kept::default(), &script);
}

/// Anything may come that the last action allows.
fn any_event(action: &Action, choice: u8, serial: u64, version: u32, minimum: u32) -> Event {
    let why = || "why".to_owned();
    let version = version.max(minimum);
    match action {
        Action::Ask => match choice % 4 {
            0 => Event::Unanswered(why()),
            1 => Event::Unusable(why()),
            _ => Event::Offered(Offer {
                release: release(&format!("{serial}=0.{version}.0")),
                minimum: self::version(&format!("0.{minimum}.0")),
            }),
        },
        Action::Take(_) if choice.is_multiple_of(3) => Event::NotTaken(why()),
        Action::Take(_) => Event::Taken,
        Action::Run(_) => match choice % 5 {
            0 => Event::Ended(End::Orphaned),
            1 => Event::Ended(End::Refused),
            2 => Event::Proven,
            _ => Event::Ended(End::Fell(why())),
        },
        Action::Wait(_) => Event::Waited,
        Action::KeepAsGood(_) | Action::Tell(_) | Action::Exit(_) => {
            panic!("{action:?} brings no event")
        }
    }
}

proptest! {
    /// Whatever happens: never below a serial or minimum that was seen, never round without a pause,
    /// never idle while there is something to run.
    #[test]
    fn no_world_drives_it_back_or_round_or_idle(
        steps in prop::collection::vec((0..600u64, any::<u8>(), 1..6u64, 0..4u32, 0..4u32), 1..200),
    ) {
        let mut stage = Stage::new(Kept::default(), Duration::from_secs(30));
        let (mut now, mut highest, mut minimum) = (0, 0, version("0.0.0"));
        let mut actions = stage.handle(Duration::ZERO, Event::Began);
        let mut runs_since_pause = 0;
        let mut proven = false;
        for (passed, choice, serial, newer, least) in steps {
            let last = match actions.last() {
                // After `Proven` the buildlet runs on.
                None | Some(Action::KeepAsGood(_)) => Action::Run(release("1")),
                Some(last) => last.clone(),
            };
            let mut event = any_event(&last, choice, serial, newer, least);
            if event == Event::Proven && std::mem::replace(&mut proven, true) {
                event = Event::Ended(End::Orphaned);
            }
            if let Event::Offered(offer) = &event && offer.release.serial >= highest {
                highest = offer.release.serial;
                minimum = offer.minimum;
            }
            let gave_up = matches!(event, Event::Unusable(_) | Event::NotTaken(_));
            now += passed;
            actions = stage.handle(Duration::from_secs(now), event);
            for action in &actions {
                match action {
                    Action::Take(release) => prop_assert!(release.serial >= highest),
                    Action::Run(release) => {
                        prop_assert!(release.version >= minimum, "{release:?} is below {minimum}");
                        proven = false;
                        runs_since_pause += 1;
                        prop_assert!(runs_since_pause <= 1, "no pause between two runs");
                    }
                    Action::Wait(pause) => {
                        prop_assert!(*pause >= Duration::from_secs(1));
                        prop_assert!(!gave_up || stage.runnable().is_none(), "idle beside a buildlet");
                        runs_since_pause = 0;
                    }
                    _ => {}
                }
            }
        }
    }
}
