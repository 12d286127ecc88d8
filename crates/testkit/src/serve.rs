//! The machines' side: what a buildlet does when it is asked.

use std::time::Duration;

use ids::StepId;
use runner::InfraCause;

use crate::Random;
use crate::coordinator::{Reply, Request};
use crate::fault::Fault;
use crate::host::{Command, ORPHAN, byte};
use crate::model::{Violation, broken};
use crate::world::{Event, World, number};

impl World<'_> {
    pub fn serve(&mut self, n: usize, life: u32, call: u64, request: Request) -> Result<(), Violation> {
        match request {
            Request::Status => self.answer(n, life, call, Reply::Status),
            Request::Prepare(attempt) => {
                self.check_place(n, attempt)?;
                self.end_commands(n);
                let key = [40, attempt.build.0, u64::from(attempt.n)];
                let mut random = Random::keyed(self.script.seed, &key);
                let bad_disks = if self.script.seed.is_multiple_of(10) {
                    60
                } else {
                    3
                };
                let failed = if random.chance(bad_disks) {
                    Some(InfraCause::MachineRefused)
                } else {
                    random.chance(2).then_some(InfraCause::SourceUnavailable)
                };
                self.hosts[n].source = failed.is_none().then_some(attempt);
                self.hosts[n].last_out = self.mono + Duration::from_millis(random.within(50, 20_000));
                self.answer(n, life, call, Reply::Prepared(failed));
            }
            Request::Start(step) | Request::Exec(step) => {
                let attached = matches!(request, Request::Exec(_));
                if attached && life != self.life {
                    return Ok(());
                }
                if self.hosts[n].commands.contains_key(&step) {
                    self.answer(n, life, call, Reply::Started);
                } else if Random::keyed(self.script.seed, &[41, step.attempt.build.0]).chance(2) {
                    self.answer(n, life, call, Reply::Refused);
                } else {
                    self.start_command(n, step)?;
                    if attached {
                        self.pump(n, life, call, step, 0);
                    } else {
                        self.answer(n, life, call, Reply::Started);
                    }
                }
            }
            Request::Follow { step, offset } => {
                let now = self.mono;
                self.hosts[n]
                    .commands
                    .retain(|_, command| now < command.ends + ORPHAN);
                if self.hosts[n].commands.contains_key(&step) {
                    self.pump(n, life, call, step, offset);
                } else {
                    self.answer(n, life, call, Reply::Unknown);
                }
            }
            Request::Kill(step) => {
                if let Some(command) = self.hosts[n].commands.get_mut(&step) {
                    command.kill(self.mono);
                }
            }
            Request::Clean => {
                self.end_commands(n);
                self.hosts[n].source = None;
                let after = self.random(42, n).within(20, 2_000);
                self.hosts[n].last_out = self.hosts[n]
                    .last_out
                    .max(self.mono + Duration::from_millis(after));
                self.answer(n, life, call, Reply::Cleaned);
            }
            Request::Halt => self.session_ends(n, "it ended itself"),
        }
        Ok(())
    }

    fn end_commands(&mut self, n: usize) {
        if self.fault != Some(Fault::CleanFilesOnly) {
            self.hosts[n].commands.clear();
        }
    }

    fn check_place(&self, n: usize, attempt: ids::AttemptId) -> Result<(), Violation> {
        let stored = self.store.builds.get(&attempt.build);
        let stored = stored.and_then(|build| build.attempts.get(attempt.n as usize - 1));
        let id = &self.hosts[n].id;
        if stored.is_some_and(|stored| stored.machine != *id) {
            return broken(format!("attempt {attempt} works on {id}, which it was not given"));
        }
        Ok(())
    }

    fn start_command(&mut self, n: usize, step: StepId) -> Result<(), Violation> {
        let now = self.mono;
        self.check_place(n, step.attempt)?;
        if self.hosts[n].source != Some(step.attempt) {
            return broken(format!(
                "step {step} is started on a machine that has not its source"
            ));
        }
        if !self.started.insert(step) {
            return broken(format!("the command of step {step} was started twice"));
        }
        let mut others = self.hosts[n].commands.iter();
        if let Some((other, _)) =
            others.find(|(other, command)| other.attempt != step.attempt && command.runs(now))
        {
            return broken(format!(
                "the commands of {other} and of {step} run on one machine at once"
            ));
        }
        let key = [
            43,
            step.attempt.build.0,
            u64::from(step.attempt.n),
            u64::from(step.index),
        ];
        let mut random = Random::keyed(self.script.seed, &key);
        let (takes, lines) = match random.below(40) {
            0 => (3_600_000, 6),
            1 => (900_000, 3),
            2 => (2_400_000, 0),
            _ => (random.within(50, 240_000), random.below(9)),
        };
        let takes = Duration::from_millis(takes);
        let build = self.store.builds.get(&step.attempt.build);
        let commit = build.map_or(0, |build| number(&build.commit));
        let command = Command {
            started: now,
            ends: now + takes,
            pace: takes / (lines as u32 + 1),
            line: random.within(1, 130),
            // What a commit says of itself does not change with the attempt.
            ok: commit % 4 != 3,
            cut_at: None,
        };
        self.hosts[n].commands.insert(step, command);
        Ok(())
    }

    /// Sends what a command has printed past `at`, and its end if that has come.
    pub fn pump(&mut self, n: usize, life: u32, call: u64, step: StepId, at: u64) {
        let (now, net) = (self.mono, self.hosts[n].net);
        let Some(command) = self.hosts[n].commands.get(&step) else {
            return self.answer(n, life, call, Reply::Gone);
        };
        let (printed, over, ok, next) = (
            command.printed(now),
            !command.runs(now),
            command.ok,
            command.next(now),
        );
        let bytes: Vec<u8> = (at..printed).map(|at| byte(step, at)).collect();
        let early = self.fault == Some(Fault::EndBeforeOutput);
        if over {
            self.ended.insert(step, (ok, printed));
        }
        if over && early {
            self.answer(n, life, call, Reply::End { ok });
        }
        if !bytes.is_empty() {
            self.answer(n, life, call, Reply::Piece { at, bytes });
        }
        if !over {
            let at = printed.max(at);
            self.push(
                next,
                Event::Pump {
                    n,
                    net,
                    life,
                    call,
                    step,
                    at,
                },
            );
        } else if !early {
            self.answer(n, life, call, Reply::End { ok });
        }
    }
}
