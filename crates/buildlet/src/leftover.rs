//! Commands of a buildlet that was killed outright, and so could not end them.
//!
//! The next one on the same working directory ends them before it takes work: what they write would be in the way, and
//! nobody follows what they print.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::strays;

/// How long they get to be gone after they were killed.
const LIMIT: Duration = Duration::from_secs(5);

/// Kills what an earlier buildlet on `workdir` has started; returns the names of what was found. Finds nothing where
/// there is no `/proc`, and nothing that has wiped its environment.
pub fn end(workdir: &Path, instance: &str) -> Vec<String> {
    let began = Instant::now();
    let mut names = Vec::new();
    loop {
        let left: Vec<_> = strays::table()
            .into_iter()
            .filter(|process| is_left(process.pid, workdir, instance))
            .collect();
        if names.is_empty() {
            names = left
                .iter()
                .map(|process| format!("{} ({})", process.name, process.pid))
                .collect();
        }
        // One that forks while we look is found the next time round.
        if left.is_empty() || began.elapsed() > LIMIT {
            return names;
        }
        for process in &left {
            strays::signal(process, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether its environment is that of a command on this directory, and of another buildlet. One that has ended has none.
fn is_left(pid: i32, workdir: &Path, instance: &str) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(environ) = std::fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let mut pairs = environ.split(|&byte| byte == 0);
    let own = format!("{instance}.");
    let mark = pairs.clone().find_map(|pair| pair.strip_prefix(b"BURROW_EXEC="));
    let place = pairs.find_map(|pair| pair.strip_prefix(b"WORKDIR="));
    mark.is_some_and(|mark| !mark.starts_with(own.as_bytes()))
        && place == Some(workdir.as_os_str().as_bytes())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn what_an_earlier_buildlet_on_the_same_folder_left_is_ended_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = |workdir: &Path, mark: Option<&str>| -> Child {
            let mut command = Command::new("sleep");
            command.arg("1000").env("WORKDIR", workdir);
            mark.map(|mark| command.env("BURROW_EXEC", mark));
            command.spawn().expect("sleep starts")
        };
        let elsewhere = folder.path().join("other");
        let mut left = start(folder.path(), Some("old.1.1.0"));
        let mut others = [
            start(folder.path(), Some("new.1.1.0")),
            start(&elsewhere, Some("old.1.1.0")),
            start(folder.path(), None),
        ];
        let ended = end(folder.path(), "new");
        let gone = left.try_wait().expect("it can be waited for").is_some();
        let live = others
            .each_mut()
            .map(|child| child.try_wait().expect("it can be waited for").is_none());
        for child in others.iter_mut().chain([&mut left]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        assert_eq!(ended, [format!("sleep ({})", left.id())]);
        assert!(gone, "it is killed");
        assert_eq!(live, [true; 3]);
    }
}
