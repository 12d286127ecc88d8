//! The output of a command on its way to whoever asked for it.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::exec::{End, Exec, GRACE, Outcome, Reaped};
use crate::stream::Buffered;

/// Passes output on until it is at its end, and is `None` then, or until more of it is waited for in vain. The caller
/// concludes what was reaped.
pub fn pass_on(
    connection: &mut Buffered,
    exec: &Arc<Exec>,
    output: &mut Option<PipeReader>,
    reaped: &mut Option<Reaped>,
) -> io::Result<()> {
    let mut exit = output.as_ref().and_then(|_| exec.exit_notice());
    while output.is_some() || exit.is_some() {
        let sources = [
            output.as_ref().map(PipeReader::as_fd),
            exit.as_ref().map(OwnedFd::as_fd),
        ];
        let [comes, ended] = connection.await_any(sources, Duration::ZERO)?;
        if !comes && !ended {
            exec.starves();
            // A process that cannot be found may hold the output open.
            let in_vain = reaped.is_some() && exec.starved(GRACE);
            if in_vain || exec.progress().end.is_some() {
                break;
            }
            connection.await_any(sources, Duration::from_secs(1))?;
            continue;
        }
        if ended {
            (exit, *reaped) = (None, exec.ended());
        }
        if comes && let Some(pipe) = output.as_mut() {
            let n = usize::try_from(rustix::io::ioctl_fionread(&*pipe)?).unwrap_or(usize::MAX);
            let kept = exec.comes(n);
            if kept > 0 {
                connection.send_output(pipe, kept)?;
            }
            io::copy(&mut pipe.take((n - kept) as u64), &mut io::sink())?;
            if n == 0 {
                *output = None;
            }
        }
    }
    Ok(())
}

pub fn exec_head(offset: u64) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
         Trailer: Process-State, Burrow-Exec, Burrow-Error\r\nBurrow-Offset: {offset}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    )
}

/// How a command ended, as trailers. One that this machine failed has no `Process-State`, which a Go client takes
/// for a machine that failed.
pub fn exec_end(end: &End, bytes: u64) -> Vec<u8> {
    let detail = json!({
        "exit": end.exit,
        "signal": end.signal,
        "wall_ms": end.wall.as_millis() as u64,
        "bytes": bytes,
        "strays": end.strays,
        "memory_peak": end.account.memory_peak,
        "cpu_ms": end.account.cpu.map(|cpu| cpu.as_millis() as u64),
    })
    .to_string();
    let (name, text) = match &end.outcome {
        Outcome::State(text) => ("Process-State", text),
        Outcome::Lost(why) => ("Burrow-Error", why),
    };
    http1::last_chunk(&[(name, text), ("Burrow-Exec", &detail)])
}
