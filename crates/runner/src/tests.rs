use std::time::Duration;

use ids::{Now, Timestamp};

use crate::*;

fn plan(steps: u32) -> Plan {
    let step = |n| StepPlan {
        name: format!("s{n}"),
        command: Command::Shell("true".into()),
        dir: "src".into(),
        env: vec![],
        timeout: Duration::from_secs(600),
        silence: Duration::from_secs(60),
        limits: ids::Limits::default(),
    };
    Plan {
        source_dir: "src".into(),
        steps: (0..steps).map(step).collect(),
        limit: Duration::from_secs(900),
    }
}

fn at(secs: u64) -> Now {
    Now {
        mono: Duration::from_secs(secs),
        wall: Timestamp::from_secs(1_000_000 + secs as i64),
    }
}

/// Runs a script of `TIME INPUT -> ACTION, ACTION` lines against a runner of `steps` steps.
fn check(steps: u32, script: &str) {
    let (runner, first) = Runner::new(plan(steps), at(0));
    assert_eq!(show(&first), "prepare");
    check_runner(runner, script);
}

fn check_runner(mut runner: Runner, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, wanted) = line.split_once("->").expect("a line has an arrow");
        let mut words = input.split_whitespace();
        let secs = words
            .next()
            .expect("time")
            .trim_end_matches('s')
            .parse()
            .expect("seconds");
        let word = words.next().expect("input");
        let index = || 0;
        let input = match (word, words.next()) {
            ("prepared", _) => Input::Prepared,
            ("unprepared", _) => Input::PrepareFailed {
                cause: InfraCause::SourceUnavailable,
                detail: "no source".into(),
            },
            ("refused", _) => Input::SourceRefused {
                detail: "a link leads out".into(),
            },
            ("output", _) => Input::Output,
            ("ok", n) => Input::StepEnded {
                index: n.map_or_else(index, |n| n.parse().expect("index")),
                ok: true,
                state: "ok".into(),
            },
            ("bad", n) => Input::StepEnded {
                index: n.map_or_else(index, |n| n.parse().expect("index")),
                ok: false,
                state: "exit status 1".into(),
            },
            ("lost", n) => Input::StepLost {
                index: n.map_or_else(index, |n| n.parse().expect("index")),
                detail: "unknown".into(),
            },
            ("unlink", _) => Input::LinkLost,
            ("link", _) => Input::LinkBack,
            ("gone", _) => Input::MachineGone { why: "power".into() },
            ("cancel", _) => Input::Cancel { by: "ann".into() },
            ("tick", _) => Input::Tick,
            other => panic!("no input {other:?}"),
        };
        assert_eq!(
            show(&runner.handle(at(secs), input)),
            wanted.trim(),
            "at line: {line}"
        );
    }
}

fn show(actions: &[Action]) -> String {
    let one = |action: &Action| match action {
        Action::Prepare => "prepare".to_owned(),
        Action::StartStep { index } => format!("start {index}"),
        Action::FollowStep { index } => format!("follow {index}"),
        Action::KillStep { index } => format!("kill {index}"),
        Action::Record(Record::StepStarted { index }) => format!("started {index}"),
        Action::Record(Record::StepEnded { index, ok, .. }) => {
            format!("ended {index} {}", if *ok { "ok" } else { "bad" })
        }
        Action::Record(Record::Ended(outcome)) => match outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed { reason, .. } => format!("failed ({reason})"),
            Outcome::Infra { cause, .. } => format!("infra {}", cause.as_str()),
            Outcome::Cancelled { by } => format!("cancelled by {by}"),
        },
    };
    actions.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[test]
fn steps_run_in_order_and_the_record_comes_before_the_start() {
    check(
        2,
        "
        1s prepared -> started 0, start 0
        2s output   ->
        3s ok 0     -> ended 0 ok, started 1, start 1
        4s ok 0     ->
        5s ok 1     -> ended 1 ok, passed
        6s gone     ->
        ",
    );
}

#[test]
fn a_step_that_fails_ends_the_attempt() {
    check(
        2,
        "
        1s prepared -> started 0, start 0
        2s bad 0    -> ended 0 bad, failed (step `s0`: exit status 1)
        ",
    );
}

#[test]
fn a_source_that_cannot_be_had_is_infra() {
    check(1, "1s unprepared -> infra source_unavailable");
}

#[test]
fn a_source_that_a_machine_refuses_is_the_commits_fault() {
    check(
        1,
        "1s refused -> failed (the source was refused: a link leads out)",
    );
}

#[test]
fn silence_kills_and_output_holds_it_off() {
    check(
        1,
        "
        1s   prepared -> started 0, start 0
        60s  output   ->
        61s  tick     ->
        120s tick     -> kill 0
        121s bad 0    -> ended 0 bad, failed (step `s0` printed nothing for 1m)
        ",
    );
}

#[test]
fn a_step_that_does_not_die_is_given_up() {
    check(
        1,
        "
        1s   prepared -> started 0, start 0
        61s  tick     -> kill 0
        80s  tick     ->
        81s  tick     -> ended 0 bad, failed (step `s0` printed nothing for 1m)
        ",
    );
}

#[test]
fn a_step_and_a_build_have_limits() {
    let mut script = "1s prepared -> started 0, start 0\n".to_owned();
    for secs in (50..=600).step_by(50) {
        script += &format!("{secs}s output ->\n");
    }
    check(
        1,
        &format!(
            "{script} 601s tick -> kill 0\n602s bad 0 -> ended 0 bad, failed (step `s0` ran over its limit of 10m)"
        ),
    );
    let mut script =
        "1s prepared -> started 0, start 0\n400s output ->\n400s ok 0 -> ended 0 ok, started 1, start 1\n"
            .to_owned();
    for secs in (450..=850).step_by(50) {
        script += &format!("{secs}s output ->\n");
    }
    script += "900s tick -> kill 1\n901s bad 1 -> ended 1 bad, failed (step `s1` ran when the build reached its limit of 15m)";
    check(2, &script);
}

#[test]
fn a_machine_that_comes_back_is_followed_not_started_again() {
    check(
        1,
        "
        1s   prepared -> started 0, start 0
        50s  unlink   ->
        200s tick     ->
        201s link     -> follow 0
        202s link     ->
        203s ok 0     -> ended 0 ok, passed
        ",
    );
}

#[test]
fn a_machine_that_stays_away_is_lost() {
    check(
        1,
        "
        1s   prepared -> started 0, start 0
        50s  unlink   ->
        349s tick     ->
        350s tick     -> infra machine_lost
        ",
    );
    check(
        1,
        "1s prepared -> started 0, start 0\n2s gone -> infra machine_lost",
    );
    check(
        1,
        "1s prepared -> started 0, start 0\n2s lost 0 -> infra machine_lost",
    );
    check(1, "1s prepared -> started 0, start 0\n2s lost 7 ->");
}

#[test]
fn cancelling_kills_first_and_wins_over_whatever_the_step_says() {
    check(
        2,
        "
        1s prepared -> started 0, start 0
        2s cancel   -> kill 0
        3s cancel   ->
        4s ok 0     -> ended 0 ok, cancelled by ann
        ",
    );
    check(1, "1s cancel -> cancelled by ann");
    // Nobody is there to be killed: nothing is waited for.
    check(
        1,
        "1s prepared -> started 0, start 0\n2s unlink ->\n3s cancel -> cancelled by ann",
    );
    check(
        1,
        "1s prepared -> started 0, start 0\n2s cancel -> kill 0\n3s gone -> cancelled by ann",
    );
}

#[test]
fn a_restored_attempt_waits_for_its_machine_and_follows() {
    let (runner, actions) = Runner::restore(plan(2), at(0), Duration::from_secs(10), &[Some(true), None]);
    assert_eq!(show(&actions), "");
    check_runner(runner, "5s link -> follow 1\n6s ok 1 -> ended 1 ok, passed");
    let (runner, _) = Runner::restore(plan(2), at(0), Duration::from_secs(10), &[]);
    check_runner(runner, "5s link -> prepare\n6s prepared -> started 0, start 0");
    let (runner, _) = Runner::restore(plan(1), at(0), Duration::from_secs(10), &[None]);
    check_runner(
        runner,
        "5s link -> follow 0\n6s lost 0 -> infra coordinator_restart",
    );
    let (_, actions) = Runner::restore(plan(1), at(0), Duration::ZERO, &[Some(true)]);
    assert_eq!(show(&actions), "passed");
}

#[test]
fn a_clock_that_jumped_while_away_shortens_the_limit_but_never_extends_it() {
    let (runner, _) = Runner::restore(plan(1), at(0), Duration::from_secs(86_400), &[None]);
    assert_eq!(runner.next_deadline(), Some(Duration::ZERO));
    let (runner, _) = Runner::restore(plan(1), at(0), Duration::ZERO, &[None]);
    assert!(runner.next_deadline() <= Some(Duration::from_secs(900)));
}

#[test]
fn infra_words_read_back() {
    for cause in [
        InfraCause::MachineLost,
        InfraCause::MachineRefused,
        InfraCause::SourceUnavailable,
        InfraCause::CoordinatorRestart,
        InfraCause::NoMachine,
    ] {
        assert_eq!(InfraCause::parse(cause.as_str()), Some(cause));
    }
    assert_eq!(InfraCause::parse("other"), None);
}
