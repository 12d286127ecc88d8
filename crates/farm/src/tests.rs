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
