use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ids::{BuildId, BuilderName, HostType, MachineId, Now, RepoName, Timestamp};
use schedule::{Action, Class, Input, Limits, Request, Scheduler};

/// As in a large farm: builders and host types of a matrix.
const BUILDERS: usize = 100;
const HOST_TYPES: usize = 10;

/// Decisions that are timed in each row.
const DECISIONS: usize = 100_000;

/// Times the scheduler alone, each row ten times the one above, and prints a table.
pub fn run() -> ExitCode {
    println!("| waiting | machines | to hand in a build | to give a machine | decisions a second |");
    println!("|---|---|---|---|---|");
    for tens in 0..4 {
        row(1_000 * 10usize.pow(tens), 10 * 10usize.pow(tens));
    }
    ExitCode::SUCCESS
}

/// `waiting` builds wait after it as before: for each that starts another is handed in, untimed.
fn row(waiting: usize, machines: usize) {
    let (builders, hosts) = (builders(), hosts());
    let request = |n: usize| Request {
        build: BuildId(n as u64),
        builder: builders[n % BUILDERS].clone(),
        repo: RepoName::parse("widget").expect("a name"),
        host_type: hosts[n % BUILDERS % HOST_TYPES].clone(),
        class: Class::PostSubmit,
        commit_time: Timestamp::from_secs((n / BUILDERS) as i64),
        requested: Timestamp::from_secs(1_000_000),
        not_before: None,
        avoid: BTreeSet::new(),
        max_at_once: None,
        usual: Some(Duration::from_secs(600)),
    };
    let now = |n: usize| Now {
        mono: Duration::from_micros(n as u64),
        wall: Timestamp::from_secs(1_000_000),
    };
    let mut scheduler = Scheduler::new(Limits::default());
    let requests: Vec<Request> = (0..waiting + machines).map(request).collect();
    let began = Instant::now();
    for (n, request) in requests.into_iter().enumerate() {
        scheduler.handle(now(n), Input::Requested(request));
    }
    let handed_in = began.elapsed() / (waiting + machines) as u32;
    let idle: Vec<Input> = (0..machines)
        .map(|n| Input::Idle {
            machine: MachineId::parse(&format!("m{n}")).expect("a name"),
            host_type: hosts[n % HOST_TYPES].clone(),
        })
        .collect();
    for input in &idle {
        scheduler.handle(now(waiting), input.clone());
    }
    assert_eq!(scheduler.waiting(), waiting, "each machine has its build");

    let mut took = Duration::ZERO;
    for n in 0..DECISIONS {
        let input = idle[n % machines].clone();
        let began = Instant::now();
        let actions = scheduler.handle(now(waiting + n), input);
        took += began.elapsed();
        let [Action::Assign { build, .. }] = actions[..] else {
            panic!("a machine that is free takes one build: {actions:?}")
        };
        // One more of the same builder, with a newer commit.
        let next = BUILDERS * (waiting + machines + n) + build.0 as usize % BUILDERS;
        scheduler.handle(now(waiting + n), Input::Requested(request(next)));
    }
    let each = took / DECISIONS as u32;
    let second = (DECISIONS as f64 / took.as_secs_f64()) as u64;
    println!("| {waiting} | {machines} | {handed_in:.1?} | {each:.1?} | {second} |");
}

fn builders() -> Vec<BuilderName> {
    let name = |n| BuilderName::parse(&format!("builder-{n}")).expect("a name");
    (0..BUILDERS).map(name).collect()
}

fn hosts() -> Vec<HostType> {
    let name = |n| HostType::parse(&format!("host-{n}")).expect("a name");
    (0..HOST_TYPES).map(name).collect()
}
