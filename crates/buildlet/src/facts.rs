//! What this machine is and how it does, for whoever decides what to send it. What cannot be found out is left out.

use std::fs;
use std::io::{self, PipeReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::contain::Abilities;
use crate::exec::Execs;

/// Programs whose versions decide what can be built here, and how each is asked.
const TOOLS: [(&str, &str); 8] = [
    ("git", "--version"),
    ("go", "version"),
    ("cc", "--version"),
    ("make", "--version"),
    ("python3", "--version"),
    ("rustc", "--version"),
    ("java", "-version"),
    ("node", "--version"),
];
/// For one of them to answer.
const TOOL_LIMIT: Duration = Duration::from_secs(5);
const LINE_MAX: usize = 120;
/// Bytes of what one says that are read.
const SAID_MAX: usize = 64 * 1024;

/// The tools are asked once, beside all else.
pub struct Facts {
    tools: OnceLock<Value>,
    began: Instant,
}

impl Facts {
    pub fn new() -> Facts {
        Facts {
            tools: OnceLock::new(),
            began: Instant::now(),
        }
    }

    pub fn look_for_tools(&self, execs: &Execs) {
        let versions = TOOLS
            .iter()
            .filter_map(|(tool, how)| Some(((*tool).to_owned(), tool_version(execs, tool, how)?)));
        // Nobody else sets it.
        let _ = self.tools.set(versions.collect::<serde_json::Map<_, _>>().into());
    }

    /// All of it as it is now. Times in ms since 1970, sizes in bytes.
    pub fn json(&self, workdir: &Path) -> Value {
        let uname = rustix::system::uname();
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let meminfo = read("/proc/meminfo");
        let disk = rustix::fs::statvfs(workdir).ok();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let mut facts = json!({
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "kernel": uname.release().to_string_lossy(),
            "cpus": thread::available_parallelism().ok().map(usize::from),
            "memory_bytes": meminfo_bytes(&meminfo, "MemTotal"),
            "memory_free_bytes": meminfo_bytes(&meminfo, "MemAvailable"),
            "disk_bytes": disk.as_ref().map(|disk| disk.f_blocks * disk.f_frsize),
            "disk_free_bytes": disk.as_ref().map(|disk| disk.f_bavail * disk.f_frsize),
            "boot_id": Some(read("/proc/sys/kernel/random/boot_id").trim().to_owned()).filter(|id| !id.is_empty()),
            "clock_ms": since.ok().map(|since| since.as_millis() as u64),
            "up_s": self.began.elapsed().as_secs(),
            "load": load(&read("/proc/loadavg")),
            "tools": self.tools.get(),
        });
        if let Some(facts) = facts.as_object_mut() {
            facts.retain(|_, fact| !fact.is_null());
        }
        facts
    }
}

/// What commands can be kept within here: by what means, or why not.
pub fn containment(abilities: &Abilities) -> Value {
    let one = |(name, ability): (&str, &Result<&str, String>)| {
        let said = match ability {
            Ok(means) => json!({"by": means}),
            Err(why) => json!({"cannot": why}),
        };
        (name.to_owned(), said)
    };
    abilities
        .all()
        .into_iter()
        .map(one)
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// `MemTotal:  16303428 kB`. Source: proc(5).
fn meminfo_bytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The load of the last minute.
fn load(loadavg: &str) -> Option<f64> {
    loadavg.split(' ').next()?.parse().ok()
}

/// The first line of what a tool says of itself.
fn tool_version(execs: &Execs, tool: &str, how: &str) -> Option<Value> {
    let path = std::env::var_os("PATH")?;
    let program = std::env::split_paths(&path)
        .map(|folder| folder.join(tool))
        .find(|path| path.is_file())?;
    let (mut output, input) = io::pipe().ok()?;
    let mut command = Command::new(program);
    command
        .arg(how)
        .stdin(Stdio::null())
        .stdout(input.try_clone().ok()?)
        .stderr(input);
    let running = execs.beside("facts", command).ok()?;
    let deadline = Instant::now() + TOOL_LIMIT;
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    while said.len() < SAID_MAX && is_readable(&output, deadline) {
        match output.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(n) => said.extend_from_slice(&piece[..n]),
        }
    }
    running.end();
    first_line(&String::from_utf8_lossy(&said)).map(Value::from)
}

fn first_line(said: &str) -> Option<String> {
    let line = said.lines().find(|line| !line.trim().is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(LINE_MAX).collect())
}

fn is_readable(output: &PipeReader, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let Ok(left) = Timespec::try_from(left) else {
        return false;
    };
    matches!(
        poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&left)),
        Ok(1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_lists_are_read() {
        let meminfo = "MemTotal:       16303428 kB\nMemFree:  1 kB\nMemAvailable:      2 kB\nHuge: 0\n";
        assert_eq!(meminfo_bytes(meminfo, "MemTotal"), Some(16_303_428 * 1024));
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable"), Some(2048));
        assert_eq!(meminfo_bytes(meminfo, "Mem"), None);
        assert_eq!(meminfo_bytes(meminfo, "Huge"), None);
        assert_eq!(load("0.52 0.58 0.59 1/9 7\n"), Some(0.52));
        assert_eq!(load(""), None);
        assert_eq!(first_line("\n go\u{7}x\nmore").as_deref(), Some(" gox"));
        assert_eq!(first_line(" \n"), None);
    }
}
