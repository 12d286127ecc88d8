use std::io;
use std::time::Duration;

use ids::MachineId;

/// Why a call to a buildlet gave no usable answer. The caller does something else for each.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or it ended before the answer did: the work moves to another host.
    #[error("buildlet {host} is gone at {request}")]
    Gone {
        host: MachineId,
        request: &'static str,
        source: io::Error,
    },
    /// It answered, and not with 200. `body` is the reason it gives, at most 4 KiB.
    #[error("buildlet {host} answered {status} to {request}: {body}")]
    Refused {
        host: MachineId,
        request: &'static str,
        status: u16,
        body: String,
    },
    /// It has not answered in time; whether it did what was asked is not known.
    #[error("buildlet {host} did not answer {request} within {limit:?}")]
    Timeout {
        host: MachineId,
        request: &'static str,
        limit: Duration,
    },
    /// It answered 200 with something else than the protocol has there: a bug on one side.
    #[error("buildlet {host} answered {request} with `{found}`; wanted {wanted}")]
    Nonsense {
        host: MachineId,
        request: &'static str,
        found: String,
        wanted: &'static str,
    },
    /// The machine failed a command, as with a full disk: how it would have ended is not known, and asking
    /// again brings the same.
    #[error("buildlet {host} failed the command: {why}")]
    Failed { host: MachineId, why: String },
    /// A file on this side could not be read or written: the buildlet is not at fault.
    #[error("cannot {what} for buildlet {host}")]
    Local {
        host: MachineId,
        what: String,
        source: io::Error,
    },
}

/// Why following a command came to no end.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The buildlet never heard of it, or has forgotten it: it was started anew since.
    #[error("the buildlet does not know this command")]
    UnknownId,
    /// The command may well run on; [`CallError::Gone`] is the one to try again after.
    #[error(transparent)]
    Call(#[from] CallError),
}
