//! Starting, finding and killing buildlets.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

/// What a buildlet inherits of the coordinator's environment: enough to run programs, no secrets.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SystemRoot",
];

/// A log longer than this begins anew; the part before it is kept as `log.old`.
const LOG_MAX: u64 = 8 << 20;

/// Where the things of one slot are.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    pub root: PathBuf,
    pub password: PathBuf,
    pub report: PathBuf,
    pub work: PathBuf,
    pub state: PathBuf,
    pub log: PathBuf,
}

impl Folder {
    pub fn new(root: PathBuf) -> Folder {
        let at = |name| root.join(name);
        Folder {
            password: at("password"),
            report: at("report.json"),
            work: at("work"),
            state: at("state"),
            log: at("log"),
            root,
        }
    }
}

/// Starts a buildlet in a process group of its own, so that neither a terminal's interrupt nor the
/// end of the coordinator reaches it.
pub(crate) fn start(binary: &Path, env: &[(String, String)], folder: &Folder) -> io::Result<Child> {
    rotate_log(&folder.log)?;
    let log = OpenOptions::new().create(true).append(true).open(&folder.log)?;
    let mut command = Command::new(binary);
    command
        .arg("-listen=127.0.0.1:0")
        .arg("-password-file")
        .arg(&folder.password)
        .arg("-report-file")
        .arg(&folder.report)
        .arg("-workdir")
        .arg(&folder.work)
        .arg("-state-dir")
        .arg(&folder.state)
        .arg("-halt=false")
        .args(["-orphan-timeout", "10m"])
        .env_clear()
        .envs(
            INHERITED
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .envs(env.iter().map(|(key, value)| (key, value)))
        .current_dir(&folder.root)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    #[cfg(unix)]
    command.process_group(0);
    command.spawn()
}

/// Moves a log that has grown too long aside. The buildlet goes on writing to the same file, at its
/// end, wherever that is.
pub(crate) fn rotate_log(log: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    if file.metadata()?.len() <= LOG_MAX {
        return Ok(());
    }
    std::fs::copy(log, log.with_extension("old"))?;
    file.set_len(0)
}

/// The last line of a log that says something, for a message; cut to 300 characters.
pub(crate) fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096))).ok()?;
    let mut tail = Vec::new();
    file.take(4096).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(
        line.trim()
            .chars()
            .take(300)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
    )
}

/// Whether this process is a buildlet of this slot: its command line names the slot's report. A zombie has
/// no command line and is none; on systems without `/proc` none are found.
pub(crate) fn is_of(pid: u32, folder: &Folder) -> bool {
    let Some(report) = folder.report.to_str() else {
        return false;
    };
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let args: Vec<&[u8]> = line.split(|&b| b == 0).collect();
    args.windows(2)
        .any(|pair| pair[0].ends_with(b"-report-file") && pair[1] == report.as_bytes())
}

/// Whether it can be seen which processes there are.
pub(crate) fn can_look() -> bool {
    Path::new("/proc/self/cmdline").exists()
}

/// Whether this is a command that a buildlet of this slot has started, or what that started: its
/// environment has the slot's work directory as `WORKDIR`, which every buildlet sets.
fn is_command(pid: u32, folder: &Folder) -> bool {
    // As the buildlet writes it.
    let work = folder.work.canonicalize().unwrap_or_else(|_| folder.work.clone());
    let Some(work) = work.to_str() else {
        return false;
    };
    let wanted = format!("WORKDIR={work}");
    let environ = std::fs::read(format!("/proc/{pid}/environ"));
    environ.is_ok_and(|environ| environ.split(|&b| b == 0).any(|pair| pair == wanted.as_bytes()))
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Kills the buildlets of this slot, whoever started them, and then their commands. Blocks.
pub(crate) fn kill_all(folder: &Folder) {
    // A command that forks while we look is found the next time round.
    for _ in 0..5 {
        let of_slot = |pid: u32| is_of(pid, folder) || is_command(pid, folder);
        let found: Vec<u32> = processes().filter(|&pid| of_slot(pid)).collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            kill(pid, of_slot);
        }
    }
}

/// Kills a process if it is still wanted: its number may be another's since it was found.
#[cfg(unix)]
fn kill(pid: u32, wanted: impl Fn(u32) -> bool) {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
        if let Ok(held) = pidfd_open(number, PidfdFlags::empty()) {
            if wanted(pid) {
                let _ = pidfd_send_signal(&held, Signal::KILL);
            }
            return;
        }
    }
    if wanted(pid) {
        let _ = kill_process(number, Signal::KILL);
    }
}

#[cfg(not(unix))]
fn kill(_: u32, _: impl Fn(u32) -> bool) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn only_processes_of_the_own_slot_are_killed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("1"));
        std::fs::create_dir_all(&folder.work).unwrap();
        let work = folder.work.canonicalize().unwrap().display().to_string();
        // A shell that waits for input, with the arguments of a buildlet.
        let process = |workdir: &str, report: &Path| {
            let mut command = Command::new("sh");
            command
                .args(["-c", "read x", "buildlet", "-report-file"])
                .arg(report)
                .stdin(Stdio::piped());
            command.env("WORKDIR", workdir).spawn().unwrap()
        };
        let (other, nowhere) = (dir.path().join("2/report.json"), Path::new("-"));
        let mut strangers = [
            process(&format!("{work}2"), nowhere),
            process(&format!("{work}/below"), nowhere),
            process("/", &other),
            process("/", &folder.report.with_extension("json2")),
        ];
        let mut own = [process(&work, nowhere), process("/", &folder.report)];
        kill_all(&folder);
        let lives = |child: &mut Child| child.try_wait().unwrap().is_none();
        let ended = own.each_mut().map(|child| !child.wait().unwrap().success());
        let alive = strangers.each_mut().map(lives);
        for stranger in &mut strangers {
            stranger.kill().unwrap();
            stranger.wait().unwrap();
        }
        assert_eq!((ended, alive), ([true; 2], [true; 4]));
    }
}
