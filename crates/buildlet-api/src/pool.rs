//! What every pool of machines tells the coordinator.

use ids::{HostType, MachineId};

use crate::{Client, Status};

/// A machine came or went.
///
/// `generation` is greater with every `Up` of one machine: a `Down` speaks of the `Up` with its own
/// number, and says nothing of a later one.
#[derive(Clone)]
pub enum PoolEvent {
    Up {
        machine: MachineId,
        host_type: HostType,
        client: Client,
        status: Status,
        pool: &'static str,
        /// Where it is, for people: `127.0.0.1:1234`, `reverse from 10.0.0.7:5555`.
        address: String,
        /// Its commands outlive the connection.
        resumable: bool,
        generation: u64,
    },
    Down {
        machine: MachineId,
        why: String,
        /// The same buildlet may come back under the same name with its commands still running.
        may_return: bool,
        generation: u64,
    },
}

impl std::fmt::Debug for PoolEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PoolEvent::Up {
                machine,
                host_type,
                pool,
                address,
                generation,
                ..
            } => {
                write!(
                    f,
                    "up {machine} ({host_type}, {pool}, {address}, generation {generation})"
                )
            }
            PoolEvent::Down {
                machine,
                why,
                generation,
                ..
            } => {
                write!(f, "down {machine} (generation {generation}): {why}")
            }
        }
    }
}
