use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::{Builder, Config, Host, Policy, Pool, Recipe, Repo, Run, StoreUrl};
use farm::{Effect, Farm, Input, MachineFacts, Step, Want, Write};
use ids::{BuildId, BuilderName, GitHash, HostType, MachineId, Now, RepoName, StepId, Timestamp};
use runner::{InfraCause, Outcome};

use crate::model::{Model, Starts, Violation};
use crate::random::Random;

/// Something done wrong on purpose, to see that the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Effects are performed before their writes are durable.
    EffectsFirst,
    /// A build's end is shown and never written.
    DropBuildDone,
    /// Ends of attempts are not written, so leases are never given back.
    DropAttemptEnded,
    /// Starts are not written: after a restart nobody knows that the command runs.
    DropStepStarted,
    /// A step found after a restart is started again and not followed.
    StartForFollow,
    /// A step's end is reported as passed whatever it was.
    AlwaysOk,
    /// Machines that were cleaned are not reported free.
    ForgetFree,
    /// What a person asked for is done and never answered.
    DropIntentDone,
    /// After a restart the numbering of builds begins anew.
    ForgetNumbers,
    /// A restart forgets what was waiting.
    ForgetWaiting,
}

impl Fault {
    pub const ALL: [Fault; 10] = [
        Fault::EffectsFirst,
        Fault::DropBuildDone,
        Fault::DropAttemptEnded,
        Fault::DropStepStarted,
        Fault::StartForFollow,
        Fault::AlwaysOk,
        Fault::ForgetFree,
        Fault::DropIntentDone,
        Fault::ForgetNumbers,
        Fault::ForgetWaiting,
    ];
}

/// What one simulated farm went through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    pub builds: usize,
    pub attempts: usize,
    pub passed: usize,
    pub failed: usize,
    pub infra: usize,
    pub cancelled: usize,
    pub coordinator_kills: u32,
    pub machine_deaths: u32,
    pub link_stalls: u32,
    pub clock_jumps: u32,
}

/// A seed under which an invariant broke, with what led up to it.
#[derive(Debug, Clone)]
pub struct Failure {
    pub seed: u64,
    pub violation: Violation,
    /// The last lines before it, oldest first.
    pub trace: Vec<String>,
}

/// Runs one farm from `seed` for two virtual hours of trouble and then until it is at rest.
pub fn simulate(seed: u64, fault: Option<Fault>) -> Result<Account, Failure> {
    let mut world = World::new(seed, fault);
    world.run().map_err(|violation| {
        let from = world.trace.len().saturating_sub(60);
        Failure {
            seed,
            violation,
            trace: world.trace[from..].to_vec(),
        }
    })
}

enum Event {
    /// For the coordinator, from a machine over its link.
    Report {
        life: u32,
        machine: usize,
        link: u32,
        input: Input,
    },
    MachineDies(usize),
    MachineReturns(usize),
    LinkStalls(usize),
    LinkReturns(usize),
    CoordinatorDies,
    CoordinatorStarts,
    ClockJumps,
    Commit(u64),
    Person,
    Compare,
}

struct Machine {
    id: MachineId,
    host_type: HostType,
    resumable: bool,
    alive: bool,
    linked: bool,
    /// Counts links: a report travels on one and is lost with it.
    link: u32,
    /// Commands it knows: when each ends and how.
    commands: BTreeMap<StepId, (Duration, bool)>,
}

struct World {
    random: Random,
    fault: Option<Fault>,
    mono: Duration,
    /// What the wall clock is off by, in seconds.
    skew: i64,
    born: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    config: Arc<Config>,
    store: Model,
    starts: Starts,
    farm: Option<Farm>,
    life: u32,
    machines: Vec<Machine>,
    wanted: Vec<Want>,
    intents: i64,
    open_intents: BTreeMap<i64, (bool, BuildId)>,
    told_intents: BTreeMap<i64, u32>,
    trouble_until: Duration,
    /// How many of a hundred machines cannot be prepared.
    bad_disks: u64,
    account: Account,
    trace: Vec<String>,
}

const MINUTE: Duration = Duration::from_secs(60);

impl World {
    fn new(seed: u64, fault: Option<Fault>) -> World {
        let mut random = Random::new(seed);
        let config = Arc::new(config(&mut random));
        let mut machines = Vec::new();
        for (host_type, resumable) in [("alpha", true), ("beta", true), ("gamma", false)] {
            for n in 0..1 + random.below(3) {
                machines.push(Machine {
                    id: MachineId::parse(&format!("{host_type}-{n}")).expect("a machine name"),
                    host_type: HostType::parse(host_type).expect("a host type"),
                    resumable,
                    alive: true,
                    linked: true,
                    link: 0,
                    commands: BTreeMap::new(),
                });
            }
        }
        let bad_disks = if random.chance(10) { 60 } else { 3 };
        let mut world = World {
            random,
            bad_disks,
            fault,
            mono: Duration::ZERO,
            skew: 0,
            born: Duration::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            config,
            store: Model::default(),
            starts: Starts::default(),
            farm: None,
            life: 0,
            machines,
            wanted: Vec::new(),
            intents: 0,
            open_intents: BTreeMap::new(),
            told_intents: BTreeMap::new(),
            trouble_until: 120 * MINUTE,
            account: Account::default(),
            trace: Vec::new(),
        };
        world.plan_trouble();
        world
    }

    fn plan_trouble(&mut self) {
        self.push(Duration::ZERO, Event::CoordinatorStarts);
        for n in 0..4 + self.random.below(8) {
            let at = self.moment();
            self.push(at, Event::Commit(n));
        }
        for _ in 0..self.random.below(6) {
            let at = self.moment();
            self.push(at, Event::CoordinatorDies);
        }
        for _ in 0..self.random.below(8) {
            let (at, n) = (self.moment(), self.any_machine());
            self.push(at, Event::MachineDies(n));
        }
        for _ in 0..self.random.below(8) {
            let (at, n) = (self.moment(), self.any_machine());
            self.push(at, Event::LinkStalls(n));
        }
        for _ in 0..self.random.below(3) {
            let at = self.moment();
            self.push(at, Event::ClockJumps);
        }
        for _ in 0..self.random.below(6) {
            let at = self.moment();
            self.push(at, Event::Person);
        }
        for n in 0..14 * 60 {
            self.push(n * MINUTE, Event::Compare);
        }
    }

    fn moment(&mut self) -> Duration {
        Duration::from_millis(self.random.below(120 * 60_000))
    }

    fn any_machine(&mut self) -> usize {
        self.random.below(self.machines.len() as u64) as usize
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    fn later(&mut self, millis: u64, event: Event) {
        self.push(self.mono + Duration::from_millis(millis), event);
    }

    fn now(&self) -> Now {
        let wall = Timestamp::from_secs(1_700_000_000 + self.skew) + self.mono;
        Now {
            mono: self.mono - self.born,
            wall,
        }
    }

    fn note(&mut self, text: String) {
        self.trace
            .push(format!("{:>10.3}s {text}", self.mono.as_secs_f64()));
    }

    fn run(&mut self) -> Result<Account, Violation> {
        loop {
            let next = self.queue.keys().next().map(|(at, _)| *at);
            let deadline = self.farm.as_ref().and_then(|farm| farm.next_deadline(self.now()));
            let deadline = deadline.map(|at| (at + self.born).max(self.mono + Duration::from_millis(1)));
            match (next, deadline) {
                (Some(at), Some(due)) if due < at => {
                    self.mono = due;
                    self.tell(Input::Tick)?;
                }
                (Some(_), _) => {
                    let ((at, _), event) = self.queue.pop_first().expect("there is a next one");
                    self.mono = self.mono.max(at);
                    self.happen(event)?;
                }
                (None, _) => break,
            }
            if self.mono > self.trouble_until && self.at_rest() {
                break;
            }
        }
        self.final_account()
    }

    fn at_rest(&self) -> bool {
        self.farm.is_some()
            && self
                .machines
                .iter()
                .all(|machine| machine.alive && machine.linked)
            && self.open_intents.is_empty()
            && self
                .wanted
                .iter()
                .all(|want| self.find(want).is_some_and(|(_, build)| build.done.is_some()))
            && self.store.builds.values().all(|build| build.done.is_some())
    }

    fn find(&self, want: &Want) -> Option<(&BuildId, &crate::model::ModelBuild)> {
        let cell = (&want.repo, &want.commit, &want.builder);
        self.store
            .builds
            .iter()
            .find(|(_, build)| (&build.repo, &build.commit, &build.builder) == cell)
    }

    fn final_account(&mut self) -> Result<Account, Violation> {
        for want in &self.wanted {
            match self.find(want) {
                None => {
                    return Err(Violation(format!(
                        "{} on {} was never built",
                        want.commit, want.builder
                    )));
                }
                Some((id, build)) if build.done.is_none() => {
                    return Err(Violation(format!("build {id} never ended")));
                }
                Some(_) => {}
            }
        }
        if let Some((id, _)) = self.store.builds.iter().find(|(_, build)| build.done.is_none()) {
            return Err(Violation(format!("build {id} never ended")));
        }
        if let Some((machine, attempt)) = self.store.leases.first_key_value() {
            return Err(Violation(format!("{attempt} holds {machine} for ever")));
        }
        if let Some(intent) = self.open_intents.keys().next() {
            return Err(Violation(format!("intent {intent} was never answered")));
        }
        let mut account = self.account.clone();
        for build in self.store.builds.values() {
            account.builds += 1;
            account.attempts += build.attempts.len();
            match build.done {
                Some(Outcome::Passed) => account.passed += 1,
                Some(Outcome::Failed { .. }) => account.failed += 1,
                Some(Outcome::Infra { .. }) => account.infra += 1,
                Some(Outcome::Cancelled { .. }) => account.cancelled += 1,
                None => {}
            }
            // A command that truly failed may not be shown as passed.
            let truth = (build.commit.as_str().as_bytes()[39] % 5) != 0;
            if matches!(build.done, Some(Outcome::Passed)) && !truth {
                return Err(Violation(format!(
                    "{} is shown as passed and failed",
                    build.commit
                )));
            }
        }
        Ok(account)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Report {
                life,
                machine,
                link,
                input,
            } => {
                let from = &self.machines[machine];
                if life == self.life && from.alive && from.linked && from.link == link {
                    self.tell(input)?;
                }
            }
            Event::MachineDies(n) => self.machine_dies(n)?,
            Event::MachineReturns(n) => {
                self.machines[n].alive = true;
                self.link_up(n)?;
            }
            Event::LinkStalls(n) => {
                if self.machines[n].linked && self.machines[n].alive {
                    self.account.link_stalls += 1;
                    self.note(format!("link of {} stalls", self.machines[n].id));
                    self.link_down(n)?;
                    let away = 1_000 + self.random.below(600_000);
                    self.later(away, Event::LinkReturns(n));
                }
            }
            Event::LinkReturns(n) => {
                if self.machines[n].alive && !self.machines[n].linked {
                    self.link_up(n)?;
                }
            }
            Event::CoordinatorDies => self.kill(),
            Event::CoordinatorStarts => self.start()?,
            Event::ClockJumps => {
                let days = [-86_400, 86_400, -30, 3_600];
                self.skew += days[self.random.below(4) as usize];
                self.account.clock_jumps += 1;
                self.note(format!("the wall clock jumps; it is off by {} s", self.skew));
            }
            Event::Commit(n) => {
                let commit = commit(n);
                for builder in self.config.builders.keys() {
                    self.wanted.push(Want {
                        repo: repo(),
                        commit: commit.clone(),
                        commit_time: self.now().wall,
                        builder: builder.clone(),
                    });
                }
                self.compare()?;
            }
            Event::Person => {
                let builds: Vec<BuildId> = self.store.builds.keys().copied().collect();
                if !builds.is_empty() {
                    let build = builds[self.random.below(builds.len() as u64) as usize];
                    self.intents += 1;
                    let retry = self.random.chance(50);
                    self.open_intents.insert(self.intents, (retry, build));
                    self.compare()?;
                }
            }
            Event::Compare => self.compare()?,
        }
        Ok(())
    }

    /// What the shell does again and again: what is wanted or asked for and not in the store.
    fn compare(&mut self) -> Result<(), Violation> {
        if self.farm.is_none() {
            return Ok(());
        }
        let missing: Vec<Want> = self
            .wanted
            .iter()
            .filter(|want| self.find(want).is_none())
            .cloned()
            .collect();
        if !missing.is_empty() {
            self.tell(Input::Wanted(missing))?;
        }
        for (intent, (retry, build)) in self.open_intents.clone() {
            if self.farm.is_none() || self.told_intents.insert(intent, self.life) == Some(self.life) {
                continue;
            }
            let by = "ann".to_owned();
            let finished = self
                .store
                .restored_build(build)
                .filter(|_| self.store.builds[&build].done.is_some());
            self.tell(if retry {
                Input::Retry {
                    intent,
                    build,
                    by,
                    finished,
                }
            } else {
                Input::Cancel { intent, build, by }
            })?;
        }
        Ok(())
    }

    fn machine_dies(&mut self, n: usize) -> Result<(), Violation> {
        if self.machines[n].alive {
            self.account.machine_deaths += 1;
            self.note(format!("{} dies", self.machines[n].id));
            if self.machines[n].linked {
                self.link_down(n)?;
            }
            self.machines[n].alive = false;
            self.machines[n].commands.clear();
            let away = 5_000 + self.random.below(900_000);
            self.later(away, Event::MachineReturns(n));
        }
        Ok(())
    }

    fn link_down(&mut self, n: usize) -> Result<(), Violation> {
        self.machines[n].linked = false;
        if !self.machines[n].resumable {
            self.machines[n].commands.clear();
        }
        let (machine, may_return) = (self.machines[n].id.clone(), self.machines[n].resumable);
        self.tell(Input::MachineDown {
            machine,
            why: "the link broke".to_owned(),
            may_return,
        })
    }

    fn link_up(&mut self, n: usize) -> Result<(), Violation> {
        self.machines[n].linked = true;
        self.machines[n].link += 1;
        self.announce(n)
    }

    fn announce(&mut self, n: usize) -> Result<(), Violation> {
        let machine = &self.machines[n];
        let facts = MachineFacts {
            resumable: machine.resumable,
            ..MachineFacts::default()
        };
        let (machine, host_type) = (machine.id.clone(), machine.host_type.clone());
        self.tell(Input::MachineUp {
            machine,
            host_type,
            facts,
        })
    }

    fn kill(&mut self) {
        if self.farm.take().is_some() {
            self.life += 1;
            self.account.coordinator_kills += 1;
            self.note("the coordinator is killed".to_owned());
            for machine in &mut self.machines {
                if !machine.resumable {
                    // Its process ends with the connection and comes back empty.
                    machine.commands.clear();
                }
            }
            let away = 500 + self.random.below(120_000);
            self.later(away, Event::CoordinatorStarts);
        }
    }

    fn start(&mut self) -> Result<(), Violation> {
        if self.farm.is_some() {
            return Ok(());
        }
        self.note("the coordinator starts".to_owned());
        self.born = self.mono;
        let mut restored = self.store.restored();
        if self.fault == Some(Fault::ForgetNumbers) {
            restored.last_build = 0;
        }
        if self.fault == Some(Fault::ForgetWaiting) {
            restored.builds.retain(|build| build.running.is_some());
        }
        let (farm, step) = Farm::restore(self.now(), self.config.clone(), restored);
        self.farm = Some(farm);
        self.carry_out(step)?;
        for n in 0..self.machines.len() {
            if self.farm.is_some() && self.machines[n].alive && self.machines[n].linked {
                self.announce(n)?;
            }
        }
        self.compare()
    }

    fn tell(&mut self, input: Input) -> Result<(), Violation> {
        let now = self.now();
        let Some(farm) = &mut self.farm else { return Ok(()) };
        let text = match &input {
            Input::Tick
            | Input::Attempt {
                event: runner::Input::Output,
                ..
            } => None,
            other => Some(format!("{other:?}")),
        };
        let step = farm.handle(now, input);
        if let Some(text) = text {
            self.note(text.chars().take(160).collect());
        }
        self.carry_out(step)
    }

    /// Commits, then acts; dies now and then before, between or after, while there is trouble.
    fn carry_out(&mut self, mut step: Step) -> Result<(), Violation> {
        let trouble = self.mono < self.trouble_until && self.random.below(400) == 0;
        let when = self.random.below(3);
        if self.fault == Some(Fault::EffectsFirst) {
            self.perform(step.effects.clone())?;
            step.effects.clear();
        }
        if trouble && when == 0 {
            self.kill();
            return Ok(());
        }
        let drop = |write: &Write| match self.fault {
            Some(Fault::DropBuildDone) => matches!(write, Write::BuildDone { .. }),
            Some(Fault::DropAttemptEnded) => matches!(write, Write::AttemptEnded { .. }),
            Some(Fault::DropStepStarted) => matches!(write, Write::StepStarted { .. }),
            Some(Fault::DropIntentDone) => matches!(write, Write::IntentDone { .. }),
            _ => false,
        };
        step.writes.retain(|write| !drop(write));
        self.store.apply(&step.writes)?;
        for write in &step.writes {
            if let Write::IntentDone { intent, .. } = write {
                self.open_intents.remove(intent);
            }
        }
        if trouble && when == 1 {
            self.kill();
            return Ok(());
        }
        self.perform(step.effects)?;
        if trouble && when == 2 {
            self.kill();
        }
        Ok(())
    }

    fn perform(&mut self, effects: Vec<Effect>) -> Result<(), Violation> {
        for effect in effects {
            self.note(format!("  {effect:?}").chars().take(140).collect());
            match effect {
                Effect::Prepare { attempt, machine, .. } => {
                    let event = if self.random.chance(self.bad_disks) {
                        let detail = "the disk is full".to_owned();
                        runner::Input::PrepareFailed {
                            cause: InfraCause::MachineRefused,
                            detail,
                        }
                    } else {
                        runner::Input::Prepared
                    };
                    let after = 100 + self.random.below(20_000);
                    self.report(&machine, after, Input::Attempt { attempt, event });
                }
                Effect::StartStep { step, machine, .. } => self.start_command(step, &machine)?,
                Effect::FollowStep { step, machine } => {
                    if self.fault == Some(Fault::StartForFollow) {
                        self.start_command(step, &machine)?;
                    } else {
                        self.follow(step, &machine);
                    }
                }
                Effect::KillStep { step, machine } => {
                    let (n, mono) = (self.index(&machine), self.mono);
                    let reachable = self.machines[n].alive && self.machines[n].linked;
                    if let Some((ends, ok)) = self.machines[n].commands.get_mut(&step).filter(|_| reachable)
                        && *ends > mono
                    {
                        (*ends, *ok) = (mono + Duration::from_millis(50), false);
                        self.follow(step, &machine);
                    }
                }
                Effect::Release { machine } => {
                    if self.fault != Some(Fault::ForgetFree) || self.random.chance(50) {
                        let after = 50 + self.random.below(2_000);
                        self.report(
                            &machine,
                            after,
                            Input::MachineFree {
                                machine: machine.clone(),
                            },
                        );
                    }
                }
            }
        }
        Ok(())
    }

    fn index(&self, machine: &MachineId) -> usize {
        self.machines
            .iter()
            .position(|m| &m.id == machine)
            .expect("the cores know only machines of this world")
    }

    fn report(&mut self, machine: &MachineId, after: u64, input: Input) {
        let n = self.index(machine);
        let (life, link) = (self.life, self.machines[n].link);
        self.later(
            after,
            Event::Report {
                life,
                machine: n,
                link,
                input,
            },
        );
    }

    fn start_command(&mut self, step: StepId, machine: &MachineId) -> Result<(), Violation> {
        let n = self.index(machine);
        if !self.machines[n].alive || !self.machines[n].linked {
            return Ok(());
        }
        self.starts.start(step)?;
        let takes = match self.random.below(20) {
            0 => 3_600_000,
            1 => 900_000,
            _ => 1_000 + self.random.below(240_000),
        };
        let build = &self.store.builds.get(&step.attempt.build);
        // What a command says depends on the commit alone, so that its result can be told later.
        let ok = build.is_none_or(|build| build.commit.as_str().as_bytes()[39] % 5 != 0);
        self.machines[n]
            .commands
            .insert(step, (self.mono + Duration::from_millis(takes), ok));
        self.follow(step, machine);
        Ok(())
    }

    /// Tells the end of a command, when it comes, over the link that there is.
    fn follow(&mut self, step: StepId, machine: &MachineId) {
        let n = self.index(machine);
        let (attempt, index) = (step.attempt, step.index);
        match self.machines[n].commands.get(&step).copied() {
            Some((ends, ok)) => {
                let ok = ok || self.fault == Some(Fault::AlwaysOk);
                let state = if ok { "ok" } else { "exit status 1" }.to_owned();
                let after = ends.saturating_sub(self.mono).as_millis() as u64 + 1;
                for quarter in 1..4 {
                    let event = runner::Input::Output;
                    self.report(machine, after * quarter / 4, Input::Attempt { attempt, event });
                }
                let event = runner::Input::StepEnded { index, ok, state };
                self.report(machine, after, Input::Attempt { attempt, event });
            }
            None => {
                let event = runner::Input::StepLost {
                    index,
                    detail: "the command is unknown".to_owned(),
                };
                self.report(machine, 10, Input::Attempt { attempt, event });
            }
        }
    }
}

fn repo() -> RepoName {
    RepoName::parse("widget").expect("a repository name")
}

fn commit(n: u64) -> GitHash {
    GitHash::parse(&format!("{:040x}", n * 7 + 1)).expect("a hash")
}

fn config(random: &mut Random) -> Config {
    let name = |text: &str| HostType::parse(text).expect("a host type");
    let recipe = ids::RecipeName::parse("widget").expect("a recipe name");
    let step = |n: u64| config::Step {
        name: format!("step{n}"),
        run: Run::Shell("true".to_owned()),
        dir: "src".to_owned(),
        env: Vec::new(),
        timeout: 40 * MINUTE,
        silence: 20 * MINUTE,
    };
    let steps = (0..1 + random.below(3)).map(step).collect();
    let hosts = ["alpha", "beta", "gamma"];
    let host = Host {
        pool: Pool::Local { slots: 1 },
        env: Vec::new(),
        owners: Vec::new(),
        notes: String::new(),
    };
    let builder = |n: usize, limit: Option<u32>| Builder {
        host: name(hosts[n % 3]),
        builds: Policy::default(),
        recipe: None,
        env: Vec::new(),
        max_at_once: limit,
        time_scale: 1,
        group: String::new(),
        order: 0,
        notes: String::new(),
        known_issues: Vec::new(),
    };
    let count = 2 + random.below(4) as usize;
    Config {
        farm: config::Farm {
            name: "simulated".to_owned(),
            public_url: None,
            state_dir: "state".into(),
            listen_http: ([127, 0, 0, 1], 0).into(),
            listen_https: None,
            tls: None,
            store: StoreUrl::Embedded,
            disk_floor: 0,
            keep_logs: Duration::MAX,
            max_log: 0,
            wait_limit: Duration::from_secs(86_400),
        },
        repos: BTreeMap::from([(
            repo(),
            Repo {
                url: "/nowhere".to_owned(),
                branches: Vec::new(),
                recipe: recipe.clone(),
                poll: MINUTE,
                backfill: 10,
            },
        )]),
        hosts: hosts
            .iter()
            .map(|host_type| (name(host_type), host.clone()))
            .collect(),
        builders: (0..count)
            .map(|n| {
                let id = BuilderName::parse(&format!("b{n}")).expect("a builder name");
                (id, builder(n, random.chance(30).then_some(1)))
            })
            .collect(),
        recipes: BTreeMap::from([(
            recipe,
            Recipe {
                source: "src".to_owned(),
                steps,
            },
        )]),
    }
}
