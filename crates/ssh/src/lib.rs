//! The ssh gateway: `ssh -p 2222 user-amy-linux-0@farm` leads to the machine that is lent as `user-amy-linux-0`.
//!
//! It ends the caller's ssh, asks the [`Farm`] who has that machine and by which keys they are known, and speaks ssh itself to
//! the machine's server over a connection that the farm makes. Shells, commands, `scp`, `sftp` and forwarding to the machine's own
//! ports go through; agents and X11 do not. Start at [`serve`].
//!
//! Never knows what a loan is in the store, nor how machines are reached.
//!
//! Source: golang/build `internal/coordinator/remote/ssh.go` (2023), which runs the ssh program in a terminal instead.

mod gate; // one caller
mod keys; // the farm's own keys, and certificates
mod relay; // one channel

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use buildlet_api::BoxedStream;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use keys::{BadKey, Keys, KeysError, authorized};

/// Callers at once; one more waits.
const CALLERS_MAX: usize = 256;

/// A machine somebody has.
#[derive(Debug, Clone)]
pub struct Lent {
    /// What it is lent as.
    pub name: String,
    /// Whose it is: `user-amy`.
    pub owner: String,
    /// Whom to be there.
    pub login: String,
    /// The owner's public keys, as lines of OpenSSH.
    pub keys: Vec<String>,
    /// Ends with the loan.
    pub ended: CancellationToken,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the gateway asks of the farm.
pub trait Farm: Send + Sync + 'static {
    /// The machine that is lent as `name`; why there is none, for who knows a key of it only.
    fn lent<'a>(&'a self, name: &'a str) -> Answer<'a, Result<Lent, String>>;

    /// A connection to its ssh server, which is to let `authorized_key` in as [`Lent::login`]; or why there is none.
    fn connect<'a>(
        &'a self,
        lent: &'a Lent,
        authorized_key: &'a str,
    ) -> Answer<'a, Result<BoxedStream, String>>;

    /// Notes that it is in use, every minute.
    fn used<'a>(&'a self, lent: &'a Lent) -> Answer<'a, ()>;
}

/// Serves until `stop`; callers are cut off then.
pub async fn serve(listener: TcpListener, farm: Arc<dyn Farm>, keys: Arc<Keys>, stop: CancellationToken) {
    let config = Arc::new(gate::config(&keys));
    let places = Arc::new(Semaphore::new(CALLERS_MAX));
    let mut callers = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place.expect("it is never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while callers.try_join_next().is_some() {}
        match accepted {
            Ok((tcp, peer)) => {
                let (farm, keys, config, stop) = (farm.clone(), keys.clone(), config.clone(), stop.clone());
                callers.spawn(async move {
                    let _place = place;
                    let called = tokio::select! {
                        () = stop.cancelled() => return,
                        called = gate::caller(tcp, peer, config, farm, keys) => called,
                    };
                    if let Err(why) = called {
                        debug!(%peer, "the ssh connection of {peer} ended: {why}");
                    }
                });
            }
            Err(why) => {
                warn!("cannot take ssh connections: {why}");
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
    callers.shutdown().await;
}
