//! Machines lent to people: the original's HTTP protocol, with our reasons in its texts.
//!
//! `POST /buildlet/create` asks the core for a machine and tells of the wait; every request with `X-Buildlet-Proxy` is
//! passed to the machine of that name, byte for byte behind its head. Source: golang/build `cmd/coordinator/remote.go`,
//! `buildlet/remote.go` (2018 to 2022).
//!
//! Differs: the head that reaches the machine holds no credentials; errors say which machine, and since when it is gone.

mod desk; // those who ask meet those who answer
mod lend; // create and list
mod pass;
mod shell; // over ssh // one request to one machine
mod who; // whose request it is
mod wire; // heads and JSON

use axum::routing::{any, post};
use buildlet_api::MasterKey;
use farm::Input;
use store::Store;
use tokio::sync::mpsc;
use web::Tokens;

use crate::Current;
use crate::drive::Connected;
use crate::engine::Board;

pub use desk::Desk;
pub use shell::Shells;
pub use wire::time;

/// Names the loan whose machine a request is for. Such requests are routed by it before any path.
pub use buildlet_api::wire::BUILDLET_PROXY as PROXY;

/// What lending needs.
#[derive(Clone)]
pub struct Gomotes {
    pub config: Current,
    pub store: Store,
    pub tokens: Tokens,
    pub board: Board,
    pub master: MasterKey,
    pub inputs: mpsc::Sender<Input>,
    pub links: Connected,
    pub desk: Desk,
    pub shells: Shells,
}

/// Those who wait, for people.
pub fn waiting(loans: &[farm::WaitingLoan]) -> Vec<dashboard::WaitingLoan> {
    let one = |loan: &farm::WaitingLoan| dashboard::WaitingLoan {
        owner: loan.owner.clone(),
        builder: loan.waiting.builder.to_string(),
        host_type: loan.waiting.host_type.to_string(),
        asked: loan.waiting.requested.0,
        ahead: loan.waiting.ahead,
        why: lend::why(&loan.waiting),
        starts: loan.waiting.starts.map(|at| at.0),
    };
    loans.iter().map(one).collect()
}

/// Its requests show credentials of their own: see `who`.
pub fn table() -> web::Table<Gomotes> {
    vec![
        ("/buildlet/create", any(lend::create)),
        ("/buildlet/list", any(lend::list)),
        ("/buildlet/ssh-keys", post(shell::put_keys)),
        ("/buildlet/ssh-certificate", post(shell::certify)),
    ]
}
