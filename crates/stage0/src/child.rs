//! The buildlet as a process.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::stage::End;

/// Runs `program`, which is told the serial that it is run for, to its end; `proven` is called once if it lives for `proven_after`.
pub fn run(
    program: &Path,
    args: &[OsString],
    serial: u64,
    proven_after: Duration,
    proven: impl FnOnce(),
) -> End {
    let mut command = Command::new(program);
    command.args(args).env("BURROW_RELEASE", serial.to_string());
    let child = match command.spawn() {
        Ok(child) => child,
        Err(why) => return End::Fell(format!("it cannot be started: {why}")),
    };
    let (tell, ended) = mpsc::channel();
    let waiter = std::thread::spawn(move || tell.send(wait(child)));
    let end = match ended.recv_timeout(proven_after) {
        Ok(end) => end,
        Err(RecvTimeoutError::Timeout) => {
            proven();
            ended.recv().expect("the waiter tells before it ends")
        }
        Err(RecvTimeoutError::Disconnected) => unreachable!("the waiter tells before it ends"),
    };
    waiter
        .join()
        .expect("the waiter does not panic")
        .expect("it is listened to");
    end.unwrap_or_else(|why| End::Fell(format!("it cannot be waited for: {why}")))
}

/// As the first process of a container it also takes the ends of orphans, which nobody else would.
#[cfg(unix)]
fn wait(child: std::process::Child) -> io::Result<End> {
    use rustix::process::WaitOptions;
    let ours = child.id();
    loop {
        let (pid, status) = match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(why) => return Err(why.into()),
        };
        if u32::try_from(pid.as_raw_nonzero().get()) == Ok(ours) {
            return Ok(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => end_of(code),
                (None, signal) => End::Fell(format!("killed by signal {}", signal.unwrap_or_default())),
            });
        }
    }
}

#[cfg(not(unix))]
fn wait(mut child: std::process::Child) -> io::Result<End> {
    Ok(match child.wait()?.code() {
        Some(code) => end_of(code),
        None => End::Fell("it has no exit code".to_owned()),
    })
}

fn end_of(code: i32) -> End {
    match code {
        0 => End::Halted,
        75 => End::Orphaned,
        78 => End::Refused,
        code => End::Fell(format!("exit status {code}")),
    }
}
