//! The two other programs in this executable: the coordinator and the buildlet.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use config::{Config, Defaults};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// The command line of a buildlet on this machine, without its flags: `$BURROW_BUILDLET`, else this
/// very executable.
pub fn buildlet_command() -> Result<Vec<OsString>, Failure> {
    if let Some(path) = std::env::var_os("BURROW_BUILDLET").filter(|path| !path.is_empty()) {
        if !PathBuf::from(&path).is_file() {
            return Err(Failure::usage(format!(
                "BURROW_BUILDLET is `{}`, which is no file",
                path.display()
            ))
            .hint("name the buildlet's executable, or unset it: burrow is a buildlet itself"));
        }
        return Ok(vec![path]);
    }
    let own = std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot tell where this executable is: {error}")))?;
    Ok(vec![own.into_os_string(), "buildlet".into()])
}

/// This program as the buildlet. `args`: its flags.
pub fn buildlet(args: Vec<OsString>) -> ExitCode {
    buildlet::main_with(args)
}

/// Runs the farm until `stop`; tells `on_ready` where its pages are.
pub async fn serve(
    config: Arc<Config>,
    reload: Option<PathBuf>,
    defaults: Defaults,
    on_ready: oneshot::Sender<SocketAddr>,
    stop: CancellationToken,
    hand_over: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let (ready, is_ready) = oneshot::channel();
    let options = coordinator::Options {
        config,
        reload,
        buildlet: buildlet_command()?,
        defaults,
        on_ready: ready,
        hand_over,
    };
    let telling = async {
        // Dropped when the farm does not come up: `serving` says why.
        if let Ok(coordinator::Ready { http, .. }) = is_ready.await {
            let _ = on_ready.send(http);
        }
    };
    let (served, ()) = tokio::join!(coordinator::serve(options, stop), telling);
    served.map_err(Failure::from)
}
