use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::{Config, Defaults, SourceFile};
use ids::{AttemptId, BuildId, GitHash, HostType, MachineId, Now, Timestamp};

use crate::*;

/// A farm with one host type and one builder, and machines `m0` and on that are free.
struct World {
    farm: Farm,
    secs: u64,
}

fn config(at_once: &str) -> Arc<Config> {
    config_of("", at_once)
}

fn config_of(farm: &str, at_once: &str) -> Arc<Config> {
    let text = format!(
        r#"
[farm]
{farm}
[repo.widget]
url = "https://git.example.org/widget.git"
recipe = "make"
[host.linux]
pool = "local"
[builder.b]
host = "linux"
{at_once}
[recipe.make]
steps = [{{ name = "test", run = ["make"] }}]
"#
    );
    let file = SourceFile {
        name: "burrow.toml".to_owned(),
        text,
    };
    let defaults = Defaults {
        cpus: 1,
        os_arch: "linux-amd64".to_owned(),
        state_dir: PathBuf::from("state"),
    };
    let checked = Config::check(&[file], &defaults).expect("a good configuration");
    Arc::new(checked.config)
}

impl World {
    fn new(at_once: &str, machines: usize) -> World {
        let now = Now {
            mono: Duration::ZERO,
            wall: Timestamp::from_secs(1_000_000),
        };
        let (farm, _) = Farm::restore(now, config(at_once), Restored::default());
        let mut world = World { farm, secs: 0 };
        for n in 0..machines {
            let machine = MachineId::parse(&format!("m{n}")).expect("a name");
            world.handle(Input::MachineUp {
                machine: machine.clone(),
                host_type: HostType::parse("linux").expect("a name"),
                facts: MachineFacts::default(),
            });
            world.handle(Input::MachineFree { machine });
        }
        world
    }

    /// What is written and done, one line each, in short.
    fn handle(&mut self, input: Input) -> Vec<String> {
        self.secs += 1;
        let now = Now {
            mono: Duration::from_secs(self.secs),
            wall: Timestamp::from_secs(1_000_000 + self.secs as i64),
        };
        let step = self.farm.handle(now, input);
        let writes = step.writes.iter().filter_map(|write| match write {
            Write::AttemptStarted { attempt, .. } => Some(format!("{attempt} starts")),
            Write::AttemptEnded { attempt, .. } => Some(format!("{attempt} ends")),
            Write::BuildDone { build, .. } => Some(format!("{build} done")),
            Write::IntentDone { answer, .. } => Some(format!("answer: {answer}")),
            _ => None,
        });
        let kills = step.effects.iter().filter_map(|effect| match effect {
            Effect::KillStep { step, .. } => Some(format!("kill {step}")),
            _ => None,
        });
        writes.chain(kills).collect()
    }

    fn want(&mut self, commits: u64) -> Vec<String> {
        let want = |n| Want {
            repo: "widget".parse().expect("a name"),
            commit: GitHash::parse(&format!("{n:040x}")).expect("a hash"),
            commit_time: Timestamp::from_secs(n as i64),
            builder: "b".parse().expect("a name"),
        };
        self.handle(Input::Wanted((1..=commits).map(want).collect()))
    }

    fn attempt(&mut self, event: runner::Input) -> Vec<String> {
        let attempt = AttemptId {
            build: BuildId(1),
            n: 1,
        };
        self.handle(Input::Attempt { attempt, event })
    }

    fn end(&mut self) -> Vec<String> {
        let (index, ok, state) = (0, false, "signal: killed".to_owned());
        self.attempt(runner::Input::StepEnded { index, ok, state })
    }

    fn cancel(&mut self) -> Vec<String> {
        self.handle(Input::Cancel {
            intent: 7,
            build: BuildId(1),
            by: "ann".to_owned(),
        })
    }

    fn retry(&mut self, build: u64) -> Vec<String> {
        self.handle(Input::Retry {
            intent: 8,
            build: BuildId(build),
            by: "ann".to_owned(),
            finished: None,
        })
    }
}

/// It was answered at once, and a coordinator killed before the command ended went on with the build.
#[test]
fn a_cancel_is_answered_once_the_attempt_has_ended() {
    let mut world = World::new("", 1);
    assert_eq!(world.want(1), ["1.1 starts"]);
    world.attempt(runner::Input::Prepared);
    assert_eq!(world.cancel(), ["kill 1.1.0"]);
    assert!(world.cancel().is_empty(), "told again at the next look");
    assert_eq!(world.end(), ["1.1 ends", "answer: cancelled", "1 done"]);
}

/// The next look at the store brings the build along.
#[test]
fn a_retry_of_a_build_that_has_just_ended_is_left_for_the_next_look() {
    let mut world = World::new("", 1);
    world.want(1);
    world.attempt(runner::Input::Prepared);
    assert_eq!(world.end(), ["1.1 ends", "1 done"]);
    assert!(world.retry(1).is_empty());
    assert_eq!(world.retry(2), ["answer: there is no such build"]);
}

/// Handing in one build gave machines to those after it, which were then handed in as if they waited.
#[test]
fn a_raised_limit_starts_each_waiting_build_once() {
    let mut world = World::new("max_at_once = 1", 5);
    assert_eq!(world.want(3), ["1.1 starts"]);
    let mut started = world.handle(Input::Configured(config("")));
    started.sort();
    assert_eq!(started, ["2.1 starts", "3.1 starts"]);
}

/// The machine was prepared for an attempt that had ended, which could come after it was given away again.
#[test]
fn what_has_begun_and_ended_in_one_transaction_is_not_done() {
    let mut world = World::new("", 1);
    assert_eq!(world.want(1), ["1.1 starts"]);
    let prepare = Effect::Prepare {
        attempt: AttemptId {
            build: BuildId(1),
            n: 1,
        },
        machine: MachineId::parse("m0").expect("a name"),
        repo: "widget".parse().expect("a name"),
        commit: GitHash::parse(&format!("{:040x}", 1)).expect("a hash"),
        source_dir: "src".to_owned(),
    };
    let release = Effect::Release {
        machine: MachineId::parse("m0").expect("a name"),
    };
    assert!(world.farm.stands(&prepare) && !world.farm.stands(&release));
    assert_eq!(world.cancel(), ["1.1 ends", "answer: cancelled", "1 done"]);
    assert!(!world.farm.stands(&prepare) && world.farm.stands(&release));
}

#[test]
fn no_back_off_is_longer_after_a_restart_than_it_can_be() {
    let now = Now {
        mono: Duration::ZERO,
        wall: Timestamp::from_secs(1_000_000),
    };
    let stored = |not_before| RestoredBuild {
        build: BuildId(1),
        repo: "widget".parse().expect("a name"),
        commit: GitHash::parse(&format!("{:040x}", 1)).expect("a hash"),
        commit_time: Timestamp(0),
        builder: "b".parse().expect("a name"),
        requested: now.wall,
        not_before: Some(not_before),
        tries_left: 2,
        attempts: 1,
        avoid: Vec::new(),
        running: None,
    };
    for (not_before, waits) in [(60, 60), (86_400, 1_500)] {
        let restored = Restored {
            loans: Vec::new(),
            last_build: 1,
            builds: vec![stored(now.wall + Duration::from_secs(not_before))],
        };
        let (farm, _) = Farm::restore(now, config(""), restored);
        assert_eq!(farm.next_deadline(now), Some(Duration::from_secs(waits)));
    }
}

/// It held from the next start on.
#[test]
fn a_changed_wait_limit_holds_for_what_waits_already() {
    let mut world = World::new("", 0);
    assert!(world.want(1).is_empty());
    let hour = config_of("wait_limit = \"1h\"", "");
    assert!(world.handle(Input::Configured(hour)).is_empty());
    world.secs += 3_500;
    assert!(world.handle(Input::Tick).is_empty());
    world.secs += 200;
    assert_eq!(world.handle(Input::Tick), ["1 done"]);
}

fn machine(n: u64) -> MachineId {
    MachineId::parse(&format!("m{n}")).expect("a name")
}

fn up(n: u64, resumable: bool) -> Input {
    Input::MachineUp {
        machine: machine(n),
        host_type: HostType::parse("linux").expect("a name"),
        facts: MachineFacts {
            resumable,
            ..MachineFacts::default()
        },
    }
}

fn down(n: u64, may_return: bool) -> Input {
    Input::MachineDown {
        machine: machine(n),
        why: "gone".to_owned(),
        may_return,
    }
}

fn event(build: u64, n: u32, event: runner::Input) -> Input {
    let build = BuildId(build);
    Input::Attempt {
        attempt: AttemptId { build, n },
        event,
    }
}

/// It was counted by the machines that are connected: one out of reach, whose command may well run on, made place for
/// another, and so did every restart.
#[test]
fn what_runs_out_of_reach_counts_for_its_builder_until_it_is_given_up() {
    let mut world = World::new("max_at_once = 1", 2);
    assert_eq!(world.want(2), ["1.1 starts"]);
    world.attempt(runner::Input::Prepared);
    assert!(world.handle(down(0, true)).is_empty());
    world.secs += 298;
    assert!(world.handle(Input::Tick).is_empty(), "it may come back");
    world.secs += 2;
    assert_eq!(world.handle(Input::Tick), ["1.1 ends", "2.1 starts"]);
}

#[test]
fn what_ran_before_a_restart_counts_for_its_builder() {
    let now = Now {
        mono: Duration::ZERO,
        wall: Timestamp::from_secs(1_000_000),
    };
    let commit = |n: u64| GitHash::parse(&format!("{n:040x}")).expect("a hash");
    let plan = plan(
        &config(""),
        &"widget".parse().expect("a name"),
        &"b".parse().expect("a name"),
        &commit(1),
    );
    let plan = plan.expect("the configuration has it");
    let limit = plan.limit;
    let stored = |n: u64, running| RestoredBuild {
        build: BuildId(n),
        repo: "widget".parse().expect("a name"),
        commit: commit(n),
        commit_time: Timestamp(0),
        builder: "b".parse().expect("a name"),
        requested: now.wall,
        not_before: None,
        tries_left: 3,
        attempts: u32::from(n == 1),
        avoid: Vec::new(),
        running,
    };
    let running = RestoredAttempt {
        attempt: AttemptId {
            build: BuildId(1),
            n: 1,
        },
        machine: machine(0),
        host_type: HostType::parse("linux").expect("a name"),
        // All but a minute of its time is over, by the wall clock.
        started: Timestamp::from_secs(1_000_000 + 60 - limit.as_secs() as i64),
        plan,
        steps: vec![RestoredStep {
            started: now.wall,
            ended: None,
        }],
    };
    let restored = Restored {
        last_build: 2,
        builds: vec![stored(1, Some(running)), stored(2, None)],
        loans: Vec::new(),
    };
    let (farm, _) = Farm::restore(now, config("max_at_once = 1"), restored);
    let mut world = World { farm, secs: 0 };
    world.handle(up(1, true));
    assert!(
        world
            .handle(Input::MachineFree { machine: machine(1) })
            .is_empty()
    );
    world.handle(up(0, true));
    world.secs = 60;
    assert_eq!(world.handle(Input::Tick), ["kill 1.1.0"], "its time goes on");
    let (index, ok, state) = (0, false, "signal: killed".to_owned());
    let end = event(1, 1, runner::Input::StepEnded { index, ok, state });
    assert_eq!(world.handle(end), ["1.1 ends", "1 done"]);
    let clean = Input::MachineFree { machine: machine(0) };
    assert_eq!(world.handle(clean), ["2.1 starts"]);
}

#[test]
fn a_machine_that_lost_its_command_ends_the_attempt_at_once() {
    for (first, then) in [(down(0, false), None), (down(0, true), Some(up(0, false)))] {
        let mut world = World::new("", 1);
        world.want(1);
        world.attempt(runner::Input::Prepared);
        let mut told = world.handle(first);
        told.extend(then.into_iter().flat_map(|then| world.handle(then)));
        assert_eq!(told, ["1.1 ends"]);
    }
}

#[test]
fn the_next_attempt_goes_to_another_machine() {
    let mut world = World::new("", 2);
    world.want(2);
    let (cause, detail) = (runner::InfraCause::MachineRefused, "full".to_owned());
    let failed = runner::Input::PrepareFailed { cause, detail };
    world.handle(event(1, 1, failed));
    // The one that refused has been free for longest, and so is first in line.
    world.handle(Input::MachineFree { machine: machine(0) });
    let refused = runner::Input::SourceRefused {
        detail: "bad".to_owned(),
    };
    assert_eq!(world.handle(event(2, 1, refused)), ["2.1 ends", "2 done"]);
    world.handle(Input::MachineFree { machine: machine(1) });
    world.secs += 61;
    assert_eq!(world.handle(Input::Tick), ["1.2 starts"]);
    assert!(world.handle(down(0, false)).is_empty(), "it runs on the other");
    assert_eq!(world.handle(down(1, false)), ["1.2 ends"]);
}

/// Cancelled while its source was on the way, and asked for again: what is heard of the first attempt is not of the second.
#[test]
fn what_comes_late_from_an_attempt_that_is_over_is_nothing() {
    let mut world = World::new("", 2);
    world.want(1);
    assert_eq!(world.cancel(), ["1.1 ends", "answer: cancelled", "1 done"]);
    let finished = RestoredBuild {
        build: BuildId(1),
        repo: "widget".parse().expect("a name"),
        commit: GitHash::parse(&format!("{:040x}", 1)).expect("a hash"),
        commit_time: Timestamp(0),
        builder: "b".parse().expect("a name"),
        requested: Timestamp(0),
        not_before: None,
        tries_left: 3,
        attempts: 1,
        avoid: Vec::new(),
        running: None,
    };
    let again = world.handle(Input::Retry {
        intent: 8,
        build: BuildId(1),
        by: "ann".to_owned(),
        finished: Some(finished),
    });
    assert_eq!(again, ["1.2 starts", "answer: waiting for a machine"]);
    let late = |mut world: Farm, attempt| {
        let now = Now {
            mono: Duration::from_secs(9),
            wall: Timestamp(9),
        };
        world
            .handle(now, event(1, attempt, runner::Input::Prepared))
            .writes
            .len()
    };
    assert_eq!(late(world.farm, 1), 0);
}

#[test]
fn a_cell_whose_build_is_over_can_be_wanted_again() {
    let mut world = World::new("", 1);
    world.want(1);
    world.cancel();
    // The store says that it has none: its records are gone.
    assert!(world.want(1).is_empty(), "the machine is being cleaned");
    assert_eq!(
        world.handle(Input::MachineFree { machine: machine(0) }),
        ["2.1 starts"]
    );
}

#[test]
fn a_machine_said_to_be_free_while_it_is_held_gets_no_second_build() {
    let mut world = World::new("", 1);
    assert_eq!(world.want(2), ["1.1 starts"]);
    assert!(
        world
            .handle(Input::MachineFree { machine: machine(0) })
            .is_empty()
    );
}

#[test]
fn of_each_build_the_first_wish_is_handed_in() {
    let open = [(1, 7), (2, 7), (3, 8), (4, 7), (5, 8)];
    let (first, rest) = first_of_each(open, |(_, build)| BuildId(*build));
    assert_eq!(first, [(1, 7), (3, 8)]);
    assert_eq!(rest, [(2, 7), (4, 7), (5, 8)]);
}
