use config::{Config, Defaults, SourceFile};

use super::*;

const CONFIG: &str = r#"
[repo.widget]
url = "/nowhere"
[recipe.widget]
steps = [{ name = "build", run = ["make"] }]
[host.rack]
pool = "local"
slots = 1
[builder.linux]
host = "rack"
[builder.linux-race]
host = "rack"
"#;

/// A farm in virtual time, told what happens and asked what it did.
struct World {
    farm: Farm,
    at: Duration,
    tickets: u64,
}

impl World {
    fn new(loans: Vec<Loan>) -> World {
        let restored = Restored {
            last_build: 7,
            loans,
            ..Restored::default()
        };
        let (farm, first) = Farm::restore(now(Duration::ZERO), config(CONFIG), restored);
        assert_eq!(
            first,
            Step::default(),
            "nothing is done before a machine is there"
        );
        World {
            farm,
            at: Duration::ZERO,
            tickets: 0,
        }
    }

    fn tell(&mut self, input: Input) -> Vec<String> {
        let step = self.farm.handle(now(self.at), input);
        let mut said: Vec<String> = step.writes.iter().filter_map(write).collect();
        said.extend(step.effects.iter().map(effect));
        said
    }

    fn borrow(&mut self, owner: &str, builder: &str) -> Vec<String> {
        self.tickets += 1;
        self.tell(Input::Borrow {
            ticket: Ticket(self.tickets),
            owner: owner.to_owned(),
            builder: builder.parse().expect("a builder name"),
        })
    }

    fn up(&mut self, name: &str, resumable: bool) -> Vec<String> {
        let facts = MachineFacts {
            resumable,
            ..MachineFacts::default()
        };
        let mut said = self.tell(Input::MachineUp {
            machine: machine(name),
            host_type: "rack".parse().expect("a host type"),
            facts,
        });
        if said.last() == Some(&format!("release {name}")) {
            said.extend(self.tell(Input::MachineFree {
                machine: machine(name),
            }));
        }
        said
    }

    fn down(&mut self, name: &str, may_return: bool) -> Vec<String> {
        self.tell(Input::MachineDown {
            machine: machine(name),
            why: "the link broke".to_owned(),
            may_return,
        })
    }

    /// Lets time pass as the shell does: a tick at each deadline.
    fn pass(&mut self, minutes: u64) -> Vec<String> {
        let (until, mut said) = (self.at + Duration::from_secs(60 * minutes), Vec::new());
        while let Some(due) = self.farm.next_deadline(now(self.at)).filter(|due| *due <= until) {
            self.at = self.at.max(due);
            said.extend(self.tell(Input::Tick));
        }
        self.at = until;
        said
    }
}

fn now(mono: Duration) -> Now {
    Now {
        mono,
        wall: Timestamp::from_secs(1_700_000_000) + mono,
    }
}

fn config(text: &str) -> Arc<Config> {
    let file = SourceFile {
        name: "burrow.toml".to_owned(),
        text: text.to_owned(),
    };
    let defaults = Defaults {
        cpus: 1,
        os_arch: "linux-amd64".to_owned(),
        state_dir: "state".into(),
    };
    Arc::new(Config::check(&[file], &defaults).expect("it is right").config)
}

fn machine(name: &str) -> MachineId {
    name.parse().expect("a machine name")
}

fn write(write: &Write) -> Option<String> {
    Some(match write {
        Write::LoanStarted(loan) => format!("{} is {} on {}", loan.loan, loan.name, loan.machine),
        Write::LoanRenewed { loan, expires } => {
            let left = expires.since(now(Duration::ZERO).wall).as_secs() / 60;
            format!("{loan} until minute {left}")
        }
        Write::LoanEnded { loan, why, .. } => format!("{loan} ends: {why}"),
        Write::MachineUp { .. } | Write::MachineDown { .. } => return None,
        other => format!("{other:?}"),
    })
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Lent { ticket, loan } => format!("ticket {} has {}", ticket.0, loan.name),
        Effect::NotLent { ticket, why } => format!("ticket {} refused: {why}", ticket.0),
        Effect::CutLoan { loan } => format!("cut {loan}"),
        Effect::Release { machine } => format!("release {machine}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_loan_gets_a_machine_and_the_smallest_free_number() {
    let mut world = World::new(Vec::new());
    assert!(world.borrow("user-amy", "linux").is_empty());
    assert_eq!(
        world.up("m1", true),
        [
            "release m1",
            "8 is user-amy-linux-0 on m1",
            "ticket 1 has user-amy-linux-0"
        ]
    );
    world.up("m2", true);
    let second = world.borrow("user-amy", "linux");
    assert_eq!(
        second,
        ["9 is user-amy-linux-1 on m2", "ticket 2 has user-amy-linux-1"]
    );
    let returned = world.tell(Input::LoanReturned {
        loan: LoanId(8),
        by: "amy".to_owned(),
    });
    assert_eq!(returned, ["8 ends: given back by amy", "cut 8", "release m1"]);
    assert!(
        world.borrow("user-amy", "linux").is_empty(),
        "m1 is not clean yet"
    );
    let cleaned = world.tell(Input::MachineFree {
        machine: machine("m1"),
    });
    assert_eq!(cleaned[0], "10 is user-amy-linux-0 on m1");
}

#[test]
fn a_loan_that_nobody_uses_ends_and_each_use_puts_that_off() {
    let mut world = World::new(Vec::new());
    world.up("m1", true);
    world.borrow("user-amy", "linux");
    assert!(world.pass(20).is_empty());
    let used = || Input::LoanUsed { loan: LoanId(8) };
    assert_eq!(world.tell(used()), ["8 until minute 50"]);
    assert!(world.tell(used()).is_empty(), "using it is not writing each time");
    assert!(world.pass(29).is_empty());
    assert_eq!(
        world.pass(1),
        ["8 ends: nobody used it for 30 min", "cut 8", "release m1"]
    );
    assert!(world.tell(used()).is_empty());
}

#[test]
fn a_restart_keeps_a_loan_on_its_machine() {
    let mut world = World::new(vec![stored("m1")]);
    assert_eq!(world.up("m1", true), Vec::<String>::new(), "it is not cleaned");
    assert!(world.borrow("user-bob", "linux").is_empty(), "and not free");
    assert!(world.borrow("user-amy", "linux").is_empty());
    assert_eq!(world.up("m2", true)[1], "8 is user-bob-linux-0 on m2");
    assert_eq!(world.up("m3", true)[1], "9 is user-amy-linux-1 on m3");
    // Of an agent that ended with its connection nothing is left to keep.
    let mut world = World::new(vec![stored("m1")]);
    assert_eq!(
        world.up("m1", false)[..3],
        [
            "5 ends: its machine came back without what was on it",
            "cut 5",
            "release m1"
        ]
    );
    // One that never comes back holds nothing for ever.
    let mut world = World::new(vec![stored("m1")]);
    assert_eq!(world.pass(31), ["5 ends: nobody used it for 30 min", "cut 5"]);
}

fn stored(on: &str) -> Loan {
    Loan {
        loan: LoanId(5),
        name: "user-amy-linux-0".to_owned(),
        owner: "user-amy".to_owned(),
        builder: "linux".parse().expect("a builder name"),
        host_type: "rack".parse().expect("a host type"),
        machine: machine(on),
        since: Timestamp::from_secs(1_600_000_000),
        expires: Timestamp::from_secs(1_600_001_800),
    }
}

#[test]
fn a_lost_machine_ends_its_loan_and_one_that_may_return_does_not() {
    let mut world = World::new(Vec::new());
    world.up("m1", true);
    world.borrow("user-amy", "linux");
    assert!(world.down("m1", true).is_empty());
    // Asking for a machine that is away does not keep it.
    world.pass(10);
    assert!(world.tell(Input::LoanUsed { loan: LoanId(8) }).is_empty());
    assert!(world.up("m1", true).is_empty(), "back, as it was");
    world.borrow("user-bob", "linux");
    let (_, waiting) = world.farm.explain(now(world.at));
    let busy = schedule::Reason::AllBusy { machines: 1 };
    assert_eq!(waiting[0].waiting.reason, busy, "and at work");
    assert_eq!(
        world.down("m1", false),
        ["8 ends: its machine was lost: the link broke", "cut 8"]
    );
}

#[test]
fn who_hangs_up_does_not_wait_any_more_and_gets_nothing() {
    let mut world = World::new(Vec::new());
    world.borrow("user-amy", "linux");
    assert!(world.tell(Input::Unask { ticket: Ticket(1) }).is_empty());
    assert_eq!(world.up("m1", true), ["release m1"]);
    world.borrow("user-amy", "linux");
    assert_eq!(
        world.tell(Input::Unask { ticket: Ticket(2) }),
        [
            "9 ends: who asked for it was gone when it came",
            "cut 9",
            "release m1"
        ]
    );
}

#[test]
fn loans_are_refused_with_a_reason() {
    let mut world = World::new(Vec::new());
    assert_eq!(
        world.borrow("user-amy", "plan9"),
        ["ticket 1 refused: there is no builder `plan9`"]
    );
    for _ in 0..MOST_LOANS {
        assert!(world.borrow("user-amy", "linux").is_empty());
    }
    assert_eq!(
        world.borrow("user-amy", "linux"),
        ["ticket 12 refused: user-amy has 10 machines or waits for them; nobody may have more"]
    );
    assert!(
        world.borrow("user-bob", "linux-race").is_empty(),
        "others are not held up"
    );
    let without = config(&CONFIG.replace("[builder.linux-race]\nhost = \"rack\"\n", ""));
    assert_eq!(
        world.tell(Input::Configured(without)),
        ["ticket 13 refused: there is no builder `linux-race`"]
    );
    let given_up = world.pass(25 * 60);
    assert_eq!(given_up.len(), MOST_LOANS);
    assert_eq!(given_up[0], "ticket 2 refused: no machine took it in 1440 min");
}

#[test]
fn what_waits_tells_loans_from_builds() {
    let mut world = World::new(Vec::new());
    world.borrow("user-amy", "linux");
    world.borrow("user-bob", "linux");
    let (builds, loans) = world.farm.explain(now(world.at));
    assert!(builds.is_empty());
    let told: Vec<_> = loans
        .iter()
        .map(|loan| {
            (
                loan.ticket.0,
                loan.owner.as_str(),
                loan.waiting.ahead,
                &loan.waiting.reason,
            )
        })
        .collect();
    let reason = schedule::Reason::NoMachine;
    assert_eq!(told, [(1, "user-amy", 0, &reason), (2, "user-bob", 1, &reason)]);
}
