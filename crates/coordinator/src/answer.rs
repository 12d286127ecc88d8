//! What a machine's answers mean for the attempt that asked, and how a step is put to a machine. Pure; `drive` waits, reads
//! and writes around it.

use buildlet_api::{CallError, ExecSpec, FollowError, ProcessState};
use runner::{Command, InfraCause, Input, StepPlan};

/// What to do after a call about a running step.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Take up its output where the stored log ends.
    Follow,
    /// The same, after a pause: the machine cannot be reached.
    FollowLater,
    /// It has ended; to be told once its output is on disk.
    Ended(ProcessState),
    /// The machine can say no more about it.
    Lost(String),
}

/// After the start of a command that outlives its connection.
pub fn after_start(answer: Result<(), CallError>) -> Next {
    match answer {
        Ok(()) => Next::Follow,
        // Whether it started is not known; following tells.
        Err(CallError::Gone { .. } | CallError::Timeout { .. }) => Next::Follow,
        Err(why) => match refused_or_lost(why) {
            Ok(state) => Next::Ended(state),
            Err(why) => Next::Lost(why),
        },
    }
}

/// After following it.
pub fn after_follow(answer: Result<ProcessState, FollowError>) -> Next {
    match answer {
        Ok(state) => Next::Ended(state),
        Err(FollowError::UnknownId) => {
            Next::Lost("the machine does not know the command any more".to_owned())
        }
        Err(FollowError::Call(CallError::Gone { .. } | CallError::Timeout { .. })) => Next::FollowLater,
        Err(FollowError::Call(why)) => Next::Lost(chain(why)),
    }
}

/// After a command that lives and dies with its connection: how it ended, or why the machine can say no more.
pub fn after_exec(answer: Result<ProcessState, CallError>) -> Result<ProcessState, String> {
    answer.or_else(refused_or_lost)
}

fn refused_or_lost(why: CallError) -> Result<ProcessState, String> {
    match why {
        // The recipe's fault: there is no such command, or not as it is written.
        CallError::Refused {
            status: 400 | 422,
            body,
            ..
        } => Ok(ProcessState::Failed(format!(
            "could not be started: {}",
            body.trim()
        ))),
        why => Err(chain(why)),
    }
}

/// Of a machine that could not be cleaned.
pub fn prepare_failed(why: CallError) -> Input {
    let cause = match &why {
        CallError::Gone { .. } | CallError::Timeout { .. } => InfraCause::MachineLost,
        CallError::Refused { .. } | CallError::Nonsense { .. } | CallError::Failed { .. } => {
            InfraCause::MachineRefused
        }
        CallError::Local { .. } => InfraCause::SourceUnavailable,
    };
    Input::PrepareFailed {
        cause,
        detail: chain(why),
    }
}

/// Of a machine that did not take the source. What makes an archive bad is in the commit, for the mirror packs it.
pub fn source_failed(why: CallError) -> Input {
    match why {
        CallError::Refused {
            status: 400, body, ..
        } => Input::SourceRefused {
            detail: body.trim().to_owned(),
        },
        why => prepare_failed(why),
    }
}

fn chain(why: CallError) -> String {
    format!("{:#}", anyhow::Error::from(why))
}

/// Why a machine whose buildlet knows of no limits is not given a step that has some.
pub fn unlimited(plan: &StepPlan, knows_limits: bool) -> Option<String> {
    let why = "its buildlet keeps commands within no limits, and the host type has some: run burrow's own of this \
               version there, or take them out of the configuration";
    (!knows_limits && !plan.limits.is_none()).then(|| why.to_owned())
}

/// The step as every version of the buildlet takes it.
pub fn exec_spec(plan: &StepPlan) -> ExecSpec {
    let (cmd, args, system) = match &plan.command {
        Command::Args(words) => {
            let mut words = words.iter().cloned();
            let cmd = words.next().unwrap_or_default();
            // A program of the source is meant from the step's folder; the buildlet takes it from the working
            // directory. Any other is the machine's: before version 26 it has to be told so, or looks for it in the
            // working directory.
            if cmd.contains('/') && !cmd.starts_with('/') {
                (format!("{}/{cmd}", plan.dir), words.collect(), false)
            } else {
                (cmd, words.collect(), true)
            }
        }
        Command::Shell(text) => {
            let args = vec!["-e".to_owned(), "-c".to_owned(), text.clone()];
            ("/bin/sh".to_owned(), args, true)
        }
    };
    ExecSpec {
        cmd,
        args,
        dir: plan.dir.clone(),
        env: plan.env.clone(),
        path: Vec::new(),
        system,
        debug: false,
        limits: plan.limits,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use ids::MachineId;

    use super::*;

    fn host() -> MachineId {
        MachineId::parse("m1").expect("a name")
    }

    fn refused(status: u16) -> CallError {
        CallError::Refused {
            host: host(),
            request: "POST /exec",
            status,
            body: "no such command\n".to_owned(),
        }
    }

    fn gone() -> CallError {
        CallError::Gone {
            host: host(),
            request: "POST /exec",
            source: io::ErrorKind::ConnectionReset.into(),
        }
    }

    fn timeout() -> CallError {
        CallError::Timeout {
            host: host(),
            request: "POST /exec",
            limit: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_command_that_the_machine_refuses_is_the_recipes_fault_and_anything_else_the_farms() {
        let failed = ProcessState::Failed("could not be started: no such command".to_owned());
        for status in [400, 422] {
            assert_eq!(after_start(Err(refused(status))), Next::Ended(failed.clone()));
            assert_eq!(after_exec(Err(refused(status))), Ok(failed.clone()));
        }
        for status in [403, 413, 500, 503] {
            assert!(matches!(after_start(Err(refused(status))), Next::Lost(_)));
            assert!(after_exec(Err(refused(status))).is_err());
        }
    }

    #[test]
    fn a_command_that_outlives_its_connection_is_followed_whatever_became_of_it() {
        assert_eq!(after_start(Ok(())), Next::Follow);
        assert_eq!(after_start(Err(gone())), Next::Follow);
        assert_eq!(after_start(Err(timeout())), Next::Follow);
        assert_eq!(after_follow(Err(gone().into())), Next::FollowLater);
        assert_eq!(after_follow(Err(timeout().into())), Next::FollowLater);
        assert!(matches!(after_follow(Err(FollowError::UnknownId)), Next::Lost(_)));
        assert!(matches!(after_follow(Err(refused(500).into())), Next::Lost(_)));
    }

    #[test]
    fn a_command_that_does_not_is_lost_with_it() {
        assert!(after_exec(Err(gone())).is_err());
        assert_eq!(after_exec(Ok(ProcessState::Ok)), Ok(ProcessState::Ok));
    }

    #[test]
    fn who_is_to_blame_for_a_machine_that_was_not_prepared() {
        let local = CallError::Local {
            host: host(),
            what: "read the archive".to_owned(),
            source: io::ErrorKind::NotFound.into(),
        };
        let cause = |why| match prepare_failed(why) {
            Input::PrepareFailed { cause, .. } => cause,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            source_failed(refused(400)),
            Input::SourceRefused {
                detail: "no such command".to_owned()
            }
        );
        assert_eq!(source_failed(refused(500)), prepare_failed(refused(500)));
        assert_eq!(cause(gone()), InfraCause::MachineLost);
        assert_eq!(cause(refused(500)), InfraCause::MachineRefused);
        assert_eq!(cause(local), InfraCause::SourceUnavailable);
    }

    #[test]
    fn a_step_with_limits_is_for_machines_that_keep_them() {
        let mut plan = StepPlan {
            name: "s".to_owned(),
            command: Command::Shell("make".to_owned()),
            dir: "src".to_owned(),
            env: Vec::new(),
            timeout: Duration::from_secs(1),
            silence: Duration::from_secs(1),
            limits: ids::Limits::default(),
        };
        assert_eq!((unlimited(&plan, false), unlimited(&plan, true)), (None, None));
        plan.limits.no_network = true;
        assert!(unlimited(&plan, false).is_some() && unlimited(&plan, true).is_none());
        assert!(exec_spec(&plan).limits.no_network);
        // What such a machine cannot do is the farm's affair, and no red build.
        assert!(matches!(after_start(Err(refused(501))), Next::Lost(_)));
    }

    #[test]
    fn programs_of_the_source_are_told_from_programs_of_the_machine() {
        let spec = |command| {
            exec_spec(&StepPlan {
                name: "s".to_owned(),
                command,
                dir: "src/sub".to_owned(),
                env: vec![("A".to_owned(), "1".to_owned())],
                timeout: Duration::from_secs(1),
                silence: Duration::from_secs(1),
                limits: ids::Limits::default(),
            })
        };
        let words = |words: &[&str]| spec(Command::Args(words.iter().map(|word| word.to_string()).collect()));
        for (cmd, sent, system) in [
            ("cargo", "cargo", true),
            ("/usr/bin/cargo", "/usr/bin/cargo", true),
            ("./make.sh", "src/sub/./make.sh", false),
        ] {
            let spec = words(&[cmd, "a b"]);
            assert_eq!((spec.cmd.as_str(), spec.system), (sent, system));
            assert_eq!(
                (spec.args, spec.dir),
                (vec!["a b".to_owned()], "src/sub".to_owned())
            );
        }
        let shell = spec(Command::Shell("a && b".to_owned()));
        assert_eq!((shell.cmd.as_str(), shell.system), ("/bin/sh", true));
        assert_eq!(shell.args, ["-e", "-c", "a && b"]);
    }
}
