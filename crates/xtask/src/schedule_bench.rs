use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use ids::{BuildId, BuilderName, HostType, MachineId, Now, RepoName, Timestamp};
use schedule::{Action, Class, Input, Limits, Request, Scheduler};

/// As in a large farm: builders and host types of a matrix.
const BUILDERS: usize = 100;
const HOST_TYPES: usize = 10;

/// Times the scheduler alone, each row ten times the one above, and prints a table.
pub fn run() -> ExitCode {
    println!("| waiting | machines | to hand in a build | to give a machine | decisions a second |");
    println!("|---|---|---|---|---|");
    for tens in 0..4 {
        let (waiting, machines) = (1_000 * 10usize.pow(tens), 10 * 10usize.pow(tens));
        // Small farms are timed often enough to be timed at all.
        let times = 1_000_000 / waiting;
        let (mut handed_in, mut given) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..times {
            let (one, other) = time(waiting, machines);
            handed_in += one / times as u32;
            given += other / times as u32;
        }
        let second = (1.0 / given.as_secs_f64()) as u64;
        println!("| {waiting} | {machines} | {handed_in:.1?} | {given:.1?} | {second} |");
    }
    ExitCode::SUCCESS
}

/// Hands in so many builds, then gives half of them a machine that has come free. How long each takes.
fn time(waiting: usize, machines: usize) -> (Duration, Duration) {
    let decisions = waiting / 2;
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
    let began = busy();
    for (n, request) in requests.into_iter().enumerate() {
        scheduler.handle(now(n), Input::Requested(request));
    }
    let handed_in = (busy() - began) / (waiting + machines) as u32;
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

    let began = busy();
    for n in 0..decisions {
        let actions = scheduler.handle(now(waiting + n), idle[n % machines].clone());
        assert!(matches!(actions[..], [Action::Assign { .. }]), "{actions:?}");
    }
    (handed_in, (busy() - began) / decisions as u32)
}

/// How long this thread has had a processor: others share the machine.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.expect("a number of nanoseconds"))
}

fn builders() -> Vec<BuilderName> {
    let name = |n| BuilderName::parse(&format!("builder-{n}")).expect("a name");
    (0..BUILDERS).map(name).collect()
}

fn hosts() -> Vec<HostType> {
    let name = |n| HostType::parse(&format!("host-{n}")).expect("a name");
    (0..HOST_TYPES).map(name).collect()
}
