//! Machines lent to people: who waits for one, who has one, until when.
//!
//! A loan waits in the scheduler's line like a build and holds its machine like an attempt. One that waits lives with its
//! asker's connection and is not stored; one that holds a machine is, and outlives the coordinator.

use ids::LoanId;

use super::*;

#[cfg(test)]
mod tests;

/// A loan that nobody has used for so long ends. Source: golang/build `cmd/coordinator/remote.go`.
pub const IDLE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Most loans of one owner at once, those that wait counted. Source: spec coordinator 4.3.
pub const MOST_LOANS: usize = 10;

/// How far the stored expiry may lag behind the true one, so that using a machine is not writing.
const EXPIRY_STEP: Duration = Duration::from_secs(60);

/// Who asked for a loan, in the asker's own numbering; forgotten with this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// An ask for a machine that waits for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingLoan {
    pub ticket: Ticket,
    pub owner: String,
    /// Its place in line. `build` is the loan's number, `repo` says nothing.
    pub waiting: Waiting,
}

/// A loan from the ask to the end.
#[derive(Debug)]
pub(super) struct Asked {
    owner: String,
    builder: BuilderName,
    asked: Timestamp,
    ticket: Option<Ticket>,
    /// `None` while it waits.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    name: String,
    machine: MachineId,
    since: Timestamp,
    /// When it ends if it is not used (mono).
    ends: Duration,
    /// As the store has it.
    expires: Timestamp,
}

impl Asked {
    /// When it ends if it is not used (mono); `None` while it waits.
    pub fn ends(&self) -> Option<Duration> {
        self.held.as_ref().map(|held| held.ends)
    }
}

/// The scheduler's name for it: builds and loans are counted together.
fn in_line(loan: LoanId) -> BuildId {
    BuildId(loan.0)
}

impl Farm {
    pub(super) fn restore_loan(&mut self, now: Now, stored: Loan, step: &mut Step) {
        let machine = Machine {
            host_type: stored.host_type.clone(),
            connected: false,
            held: Some(Holder::Loan(stored.loan)),
        };
        self.machines.insert(stored.machine.clone(), machine);
        let (at, host_type) = (stored.machine.clone(), stored.host_type);
        self.busy(
            now,
            at,
            host_type,
            stored.builder.clone(),
            in_line(stored.loan),
            stored.since,
            step,
        );
        let held = Held {
            name: stored.name,
            machine: stored.machine,
            since: stored.since,
            // A restart counts as a use: nobody could use it meanwhile.
            ends: now.mono + IDLE_LIMIT,
            expires: stored.expires,
        };
        let loan = Asked {
            owner: stored.owner,
            builder: stored.builder,
            asked: stored.since,
            ticket: None,
            held: Some(held),
        };
        self.loans.insert(stored.loan, loan);
    }

    pub(super) fn borrow(
        &mut self,
        now: Now,
        ticket: Ticket,
        owner: String,
        builder: BuilderName,
        step: &mut Step,
    ) {
        let theirs = self.loans.values().filter(|loan| loan.owner == owner).count();
        if theirs >= MOST_LOANS {
            let why = format!("{owner} has {theirs} machines or waits for them; nobody may have more");
            return step.effects.push(Effect::NotLent { ticket, why });
        }
        self.last_build += 1;
        let id = LoanId(self.last_build);
        let loan = Asked {
            owner,
            builder,
            asked: now.wall,
            ticket: Some(ticket),
            held: None,
        };
        self.loans.insert(id, loan);
        self.enqueue_loan(now, id, step);
    }

    /// Puts a loan that waits in line, or refuses it when the configuration has no place for it.
    fn enqueue_loan(&mut self, now: Now, id: LoanId, step: &mut Step) {
        let Some(loan) = self.loans.get(&id) else { return };
        let Some(conf) = self.config.builders.get(&loan.builder) else {
            let why = format!("there is no builder `{}`", loan.builder);
            self.schedule(now, schedule::Input::Withdrawn { build: in_line(id) }, step);
            return self.refuse_loan(id, why, step);
        };
        let request = Request {
            build: in_line(id),
            builder: loan.builder.clone(),
            repo: RepoName::parse("gomote").expect("a plain name"),
            host_type: conf.host.clone(),
            class: Class::Interactive,
            commit_time: loan.asked,
            requested: loan.asked,
            not_before: None,
            avoid: BTreeSet::new(),
            max_at_once: conf.max_at_once,
            usual: None,
        };
        self.schedule(now, schedule::Input::Requested(request), step);
    }

    pub(super) fn configure_loans(&mut self, now: Now, step: &mut Step) {
        let waiting = self.loans.iter().filter(|(_, loan)| loan.held.is_none());
        let waiting: Vec<LoanId> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            self.enqueue_loan(now, id, step);
        }
    }

    /// Whether the scheduler's `build` is a loan.
    pub(super) fn as_loan(&self, build: BuildId) -> Option<LoanId> {
        let loan = LoanId(build.0);
        self.loans.contains_key(&loan).then_some(loan)
    }

    pub(super) fn lend(&mut self, now: Now, id: LoanId, machine: MachineId, step: &mut Step) {
        let (Some(loan), Some(host)) = (self.loans.get(&id), self.machines.get_mut(&machine)) else {
            return;
        };
        host.held = Some(Holder::Loan(id));
        let taken = |name: &String| {
            let mut held = self.loans.values().filter_map(|loan| loan.held.as_ref());
            held.any(|held| held.name == *name)
        };
        let mut names = (0..).map(|n: u32| format!("{}-{}-{n}", loan.owner, loan.builder));
        let name = names.find(|name| !taken(name)).expect("numbers do not run out");
        let new = Loan {
            loan: id,
            name: name.clone(),
            owner: loan.owner.clone(),
            builder: loan.builder.clone(),
            host_type: host.host_type.clone(),
            machine: machine.clone(),
            since: now.wall,
            expires: now.wall + IDLE_LIMIT,
        };
        let held = Held {
            name,
            machine,
            since: now.wall,
            ends: now.mono + IDLE_LIMIT,
            expires: new.expires,
        };
        step.writes.push(Write::LoanStarted(new.clone()));
        let loan = self.loans.get_mut(&id).expect("it was there");
        loan.held = Some(held);
        step.effects
            .extend(loan.ticket.map(|ticket| Effect::Lent { ticket, loan: new }));
    }

    pub(super) fn refuse_loan(&mut self, id: LoanId, why: String, step: &mut Step) {
        let ticket = self.loans.remove(&id).and_then(|loan| loan.ticket);
        step.effects
            .extend(ticket.map(|ticket| Effect::NotLent { ticket, why }));
    }

    /// The asker is gone: nobody would know that the machine is theirs.
    pub(super) fn unask(&mut self, now: Now, ticket: Ticket, step: &mut Step) {
        let found = self.loans.iter().find(|(_, loan)| loan.ticket == Some(ticket));
        let Some((id, loan)) = found else { return };
        let (id, waits) = (*id, loan.held.is_none());
        if waits {
            self.loans.remove(&id);
            self.schedule(now, schedule::Input::Withdrawn { build: in_line(id) }, step);
        } else {
            self.end_loan(now, id, "who asked for it was gone when it came".to_owned(), step);
        }
    }

    pub(super) fn lent_machine_up(
        &mut self,
        now: Now,
        id: LoanId,
        machine: MachineId,
        host_type: HostType,
        resumable: bool,
        step: &mut Step,
    ) {
        let Some(loan) = self.loans.get(&id) else { return };
        if !resumable {
            let why = "its machine came back without what was on it".to_owned();
            return self.end_loan(now, id, why, step);
        }
        let (builder, since) = (
            loan.builder.clone(),
            loan.held.as_ref().map_or(loan.asked, |held| held.since),
        );
        self.busy(now, machine, host_type, builder, in_line(id), since, step);
    }

    pub(super) fn loan_used(&mut self, now: Now, id: LoanId, step: &mut Step) {
        let Some(held) = self.loans.get_mut(&id).and_then(|loan| loan.held.as_mut()) else {
            return;
        };
        let connected = |machine| {
            self.machines
                .get(machine)
                .is_some_and(|host: &Machine| host.connected)
        };
        // A machine that stays away cannot be kept by asking for it.
        if !connected(&held.machine) {
            return;
        }
        held.ends = now.mono + IDLE_LIMIT;
        let expires = now.wall + IDLE_LIMIT;
        if expires.since(held.expires) >= EXPIRY_STEP {
            held.expires = expires;
            step.writes.push(Write::LoanRenewed { loan: id, expires });
        }
    }

    pub(super) fn loan_returned(&mut self, now: Now, id: LoanId, by: &str, step: &mut Step) {
        if self.loans.get(&id).is_some_and(|loan| loan.held.is_some()) {
            self.end_loan(now, id, format!("given back by {by}"), step);
        }
    }

    pub(super) fn end_loan(&mut self, now: Now, id: LoanId, why: String, step: &mut Step) {
        let Some(held) = self.loans.remove(&id).and_then(|loan| loan.held) else {
            return;
        };
        let at = now.wall;
        step.writes.push(Write::LoanEnded { loan: id, at, why });
        step.effects.push(Effect::CutLoan { loan: id });
        let machine = held.machine;
        let Some(host) = self.machines.get_mut(&machine) else {
            return;
        };
        host.held = None;
        if host.connected {
            step.effects.push(Effect::Release { machine });
        } else {
            self.forget(now, machine, step);
        }
    }

    pub(super) fn end_idle_loans(&mut self, now: Now, step: &mut Step) {
        let idle = self
            .loans
            .iter()
            .filter(|(_, loan)| loan.ends().is_some_and(|ends| ends <= now.mono));
        let idle: Vec<LoanId> = idle.map(|(id, _)| *id).collect();
        for id in idle {
            let why = format!("nobody used it for {} min", IDLE_LIMIT.as_secs() / 60);
            self.end_loan(now, id, why, step);
        }
    }

    /// Those of `all` that are loans, taken out of it.
    pub(super) fn take_loans(&self, all: &mut Vec<Waiting>) -> Vec<WaitingLoan> {
        let loan = |waiting: &mut Waiting| self.loans.contains_key(&LoanId(waiting.build.0));
        let named = |waiting: Waiting| {
            let loan = self.loans.get(&LoanId(waiting.build.0))?;
            Some(WaitingLoan {
                ticket: loan.ticket?,
                owner: loan.owner.clone(),
                waiting,
            })
        };
        all.extract_if(.., loan).filter_map(named).collect()
    }
}
