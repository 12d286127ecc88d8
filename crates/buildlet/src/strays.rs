//! Processes that a command leaves behind: found by its session, by the mark in their environment, by
//! who started them, and by who adopted them when their parents died.
//!
//! Where there is no `/proc` none are found, and a command's process group is all that is ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rustix::process::{Pid, Signal};

/// One process, as the system's table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    parent: i32,
    session: i32,
    dead: bool,
    pub name: String,
    /// When it was started; with the number, what no other process has.
    start: u64,
}

/// Whose processes are looked for.
pub struct Owner<'a> {
    /// The command itself, which leads its session.
    pub leader: i32,
    /// The pair in the environment of all that it started.
    pub mark: &'a str,
    /// This program, which adopts whose parents died.
    pub adopter: i32,
    /// The commands of this program that run or are not waited for yet.
    pub leaders: &'a BTreeSet<i32>,
}

/// What this program may have adopted: its children that lead no command, and all below them. With them, enough
/// of the table to tell whose they are.
///
/// A living process below this program has an ancestor that is a living child of it, at any moment; so where the
/// list of children holds nothing but leaders, nothing was left behind. `leaders` must stay as they are
/// meanwhile, as must be who waits for children: only adoption may change the list, and it is looked at again
/// at the end.
pub fn adopted(leaders: &BTreeSet<i32>) -> Vec<Process> {
    let own = std::process::id() as i32;
    let Some(mut known) = children(own, own) else {
        return table();
    };
    // Whoever keeps starting processes as fast as this looks is found by the next look.
    for _ in 0..8 {
        let mut found = Vec::new();
        for &child in known.iter().filter(|child| !leaders.contains(child)) {
            below(child, &mut found);
        }
        match children(own, own) {
            Some(now) if now != known => known = now,
            _ => return found,
        }
    }
    table()
}

/// A process and all below it.
fn below(top: i32, found: &mut Vec<Process>) {
    let mut left = vec![top];
    while let Some(pid) = left.pop() {
        if found.len() > FOUND_MAX {
            return;
        }
        // One that is gone has left its children to this program, or to one that was looked at already.
        let Some(process) = process(pid) else { continue };
        let dead = process.dead;
        found.push(process);
        if !dead {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten()
                .flatten();
            let tasks = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
            left.extend(tasks.filter_map(|task: i32| children(pid, task)).flatten());
        }
    }
}

/// Children that one thread of a process started; those that were adopted belong to its first. `None` where the
/// system keeps no such list.
///
/// Source: proc_pid_task(5); Linux `kernel/exit.c`, `find_new_reaper`.
fn children(pid: i32, task: i32) -> Option<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{task}/children")).ok()?;
    text.split_ascii_whitespace()
        .map(|pid| pid.parse().ok())
        .collect()
}

/// More are not looked for at once: those found are ended first.
const FOUND_MAX: usize = 100_000;

/// All processes. Empty where there is no `/proc`.
pub fn table() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(process).collect()
}

fn process(pid: i32) -> Option<Process> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// `PID (NAME) STATE PARENT GROUP SESSION ...`; the name may hold anything. Source: proc(5).
fn parse(stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        dead: matches!(*fields.first()?, "Z" | "X"),
        name: name
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
        start: fields.get(19)?.parse().ok()?,
    })
}

/// Whether the process's environment has `mark`.
pub fn is_marked(pid: i32, mark: &str) -> bool {
    let environ = fs::read(format!("/proc/{pid}/environ"));
    environ.is_ok_and(|environ| environ.split(|&b| b == 0).any(|pair| pair == mark.as_bytes()))
}

/// The living processes of a command, itself aside. All are below this program, which adopts those whose
/// parents die.
///
/// One that has left the session, wiped its environment and lost its parents is known to be of some
/// command alone; it is this one's if no other is there.
pub fn of(owner: &Owner, table: &[Process], is_marked: impl Fn(i32) -> bool) -> Vec<Process> {
    let alone = owner.leaders.iter().all(|&leader| leader == owner.leader);
    let by_pid: BTreeMap<i32, &Process> = table.iter().map(|process| (process.pid, process)).collect();
    let found = |process: &&Process| {
        if process.dead || owner.leaders.contains(&process.pid) {
            return false;
        }
        let Some(lineage) = lineage(process, owner.adopter, &by_pid) else {
            return false;
        };
        for process in lineage {
            if process.pid == owner.leader || process.session == owner.leader || is_marked(process.pid) {
                return true;
            }
            if owner.leaders.contains(&process.pid) {
                return false;
            }
        }
        alone
    };
    table.iter().filter(found).cloned().collect()
}

/// The process and those above it, below `adopter`; `None` if it is not below it at all.
fn lineage<'a>(
    process: &'a Process,
    adopter: i32,
    by_pid: &BTreeMap<i32, &'a Process>,
) -> Option<Vec<&'a Process>> {
    let mut lineage = vec![process];
    let mut parent = process.parent;
    while parent != adopter {
        let next = by_pid.get(&parent)?;
        // A table read while things change may even have a circle.
        if lineage.len() > by_pid.len() {
            return None;
        }
        lineage.push(next);
        parent = next.parent;
    }
    Some(lineage)
}

/// Adopted processes that have ended and wait to be waited for.
pub fn adopted_dead<'a>(
    adopter: i32,
    leaders: &'a BTreeSet<i32>,
    table: &'a [Process],
) -> impl Iterator<Item = Pid> + 'a {
    let ours = move |process: &&Process| {
        process.dead && process.parent == adopter && !leaders.contains(&process.pid)
    };
    table
        .iter()
        .filter(ours)
        .filter_map(|process| Pid::from_raw(process.pid))
}

/// Signals a process that was seen, and none that has its number since.
pub fn signal(seen: &Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(seen.pid) else {
        return;
    };
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
        if let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) {
            if process(seen.pid).is_some_and(|now| now.start == seen.start) {
                // Ended meanwhile is as good.
                let _ = pidfd_send_signal(&held, signal);
            }
            return;
        }
    }
    if process(seen.pid).is_some_and(|now| now.start == seen.start) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: i32, parent: i32, session: i32) -> Process {
        Process {
            pid,
            parent,
            session,
            dead: false,
            name: format!("p{pid}"),
            start: 1,
        }
    }

    #[test]
    fn a_row_of_the_table_is_read_whatever_its_name() {
        let stat = b"17 (a) b\n(c) S 5 17 12 0 -1 4194560 1 2 3 4 5 6 7 8 9 20 1 0 4711 1 1\n";
        let wanted = Process {
            pid: 17,
            parent: 5,
            session: 12,
            dead: false,
            name: "a) b (c".to_owned(),
            start: 4711,
        };
        assert_eq!(parse(stat), Some(wanted));
        assert_eq!(parse(b"17 (a"), None);
        let own = process(std::process::id() as i32);
        assert_eq!(own.map(|own| own.pid), Some(std::process::id() as i32));
    }

    #[test]
    fn strays_are_told_from_strangers() {
        // 100 is the buildlet; 200 and 300 lead commands.
        let table = vec![
            row(100, 1, 100),
            row(200, 100, 200),
            row(201, 200, 200),
            row(202, 100, 200),
            row(203, 201, 203),
            row(204, 100, 204),
            row(205, 204, 205),
            row(300, 100, 300),
            row(301, 300, 300),
            row(400, 1, 400),
            row(401, 402, 401),
            row(402, 401, 401),
        ];
        let strays = |leaders: &[i32], marked: i32| {
            let leaders = leaders.iter().copied().collect();
            let owner = Owner {
                leader: 200,
                mark: "",
                adopter: 100,
                leaders: &leaders,
            };
            let found = of(&owner, &table, |pid| pid == marked);
            found.iter().map(|process| process.pid).collect::<Vec<_>>()
        };
        // With another command there, whose the adopted ones are is not known.
        assert_eq!(strays(&[200, 300], 0), [201, 202, 203]);
        assert_eq!(strays(&[200, 300], 204), [201, 202, 203, 204, 205]);
        // What is not below the buildlet is none of its commands', whatever it says of itself.
        assert_eq!(strays(&[200, 300], 400), [201, 202, 203]);
    }

    #[test]
    fn alone_a_command_owns_whatever_was_adopted() {
        let mut table = vec![
            row(100, 1, 100),
            row(200, 100, 200),
            row(204, 100, 204),
            row(205, 204, 205),
        ];
        table.push(Process {
            dead: true,
            ..row(206, 100, 206)
        });
        let leaders = BTreeSet::from([200]);
        let owner = Owner {
            leader: 200,
            mark: "",
            adopter: 100,
            leaders: &leaders,
        };
        let found = of(&owner, &table, |_| false);
        assert_eq!(
            found.iter().map(|process| process.pid).collect::<Vec<_>>(),
            [204, 205]
        );
        let dead: Vec<i32> = adopted_dead(100, &leaders, &table)
            .map(|pid| pid.as_raw_nonzero().get())
            .collect();
        assert_eq!(dead, [206]);
    }
}
