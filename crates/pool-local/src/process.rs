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

/// The buildlets of this slot that run, by their command lines: those that name its report. On
/// systems without `/proc` none are found.
pub(crate) fn find(folder: &Folder) -> Vec<u32> {
    processes().filter(|&pid| is_of(pid, folder)).collect()
}

/// Whether this process is a buildlet of this slot. A zombie has no command line and is none.
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

/// The commands that buildlets of this slot have started, and what these started: all whose
/// environment has the slot's work directory as `WORKDIR`, which every buildlet sets.
fn find_commands(folder: &Folder) -> Vec<u32> {
    let Some(work) = folder.work.to_str() else {
        return Vec::new();
    };
    let wanted = format!("WORKDIR={work}");
    let of_slot = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ"));
        environ.is_ok_and(|environ| environ.split(|&b| b == 0).any(|pair| pair == wanted.as_bytes()))
    };
    processes().filter(of_slot).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Kills the buildlets of this slot, whoever started them, and then their commands. Blocks.
pub(crate) fn kill_all(folder: &Folder) {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process};
        // A command that forks while we look is found the next time round.
        for _ in 0..5 {
            let mut found = find(folder);
            found.extend(find_commands(folder));
            if found.is_empty() {
                return;
            }
            for pid in found
                .into_iter()
                .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}
