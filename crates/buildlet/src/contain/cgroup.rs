//! Groups of processes in the kernel's hierarchies: of the second version, which ends a group with one write, and
//! of the first, which on some machines still has memory and processes.
//!
//! A machine's groups are `burrow-INSTANCE`, one in each hierarchy it uses, with one group for each command below.
//! Each is locked by the program that made it: what one that died left behind is ended by the next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::{Ability, Account, Limits};

const PREFIX: &str = "burrow-";
/// The group this program goes into where it may not stay among its own groups.
const AGENT: &str = "agent";
/// How often a group is made anew that others took for left over.
const OWN_TRIES: usize = 200;
/// For a group that was killed to be empty.
const EMPTY_LIMIT: Duration = Duration::from_secs(5);

/// This process's own group in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    dir: PathBuf,
    /// Of the first version; empty for the second.
    controllers: Vec<String>,
}

impl Place {
    fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// Where this process is, by its lists of mounts and of groups. Source: proc(5), cgroups(7).
fn places(mountinfo: &str, groups: &str) -> Vec<Place> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let rest: Vec<&str> = rest.split(' ').collect();
        Some((*fields.get(3)?, *fields.get(4)?, *rest.first()?, *rest.get(2)?))
    });
    let mounts: Vec<_> = mounts.collect();
    let place = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, own) = (parts.next()?, parts.next()?, parts.next()?);
        let wanted: Vec<&str> = controllers.split(',').filter(|name| !name.is_empty()).collect();
        if controllers.contains("name=") {
            return None;
        }
        let fits = |mount: &&(&str, &str, &str, &str)| match wanted.first() {
            None => mount.2 == "cgroup2",
            Some(first) => mount.2 == "cgroup" && mount.3.split(',').any(|option| option == *first),
        };
        let (root, at, ..) = mounts.iter().find(fits)?;
        // In a container the mount may begin further down, or the group lie outside of it.
        let below = match own.strip_prefix(root.trim_end_matches('/')) {
            Some(below) if below.is_empty() || below.starts_with('/') => below.trim_start_matches('/'),
            _ => "",
        };
        let dir = Path::new(at).join(below);
        Some(Place {
            dir,
            controllers: wanted.iter().map(|name| (*name).to_owned()).collect(),
        })
    };
    groups.lines().filter_map(place).collect()
}

/// One hierarchy in which this program has a group.
struct Hierarchy {
    dir: PathBuf,
    is_v2: bool,
    memory: bool,
    processes: bool,
    /// Held locked as long as this program lives.
    _lock: File,
}

/// All of them.
pub struct Groups {
    hierarchies: Vec<Hierarchy>,
    pub tree: Ability,
    pub memory: Ability,
    pub processes: Ability,
    next: AtomicU64,
}

impl Groups {
    pub fn open(instance: &str) -> Groups {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let places = places(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let none = |what: &str| Err(format!("no group of processes with `{what}` is mounted"));
        let mut groups = Groups {
            hierarchies: Vec::new(),
            tree: none("cgroup.kill"),
            memory: none("memory"),
            processes: none("pids"),
            next: AtomicU64::new(0),
        };
        let name = format!("{PREFIX}{instance}");
        let (v2, v1): (Vec<Place>, Vec<Place>) = places.into_iter().partition(Place::is_v2);
        for place in &v2 {
            groups.open_v2(place, &name);
        }
        for place in &v1 {
            groups.open_v1(place, &name);
        }
        groups
    }

    fn open_v2(&mut self, place: &Place, name: &str) {
        let base = match place.dir.parent() {
            // An earlier start of this program moved here.
            Some(parent) if place.dir.ends_with(AGENT) && parent.join("cgroup.kill").exists() => parent,
            _ => &place.dir,
        };
        let missing = enable(base);
        match own(base, name, true) {
            Err(why) => {
                self.tree = Err(why.clone());
                self.memory = Err(why.clone());
                self.processes = Err(why);
            }
            Ok(mut hierarchy) => {
                if hierarchy.dir.join("cgroup.kill").exists() {
                    self.tree = Ok("cgroup.kill");
                } else {
                    self.tree = Err("this kernel has no `cgroup.kill`; wanted Linux 5.14".to_owned());
                }
                // A step down, for the groups of commands.
                let down = enable(&hierarchy.dir);
                let has = |file: &str, controller: &str| {
                    let enabled = fs::read_to_string(hierarchy.dir.join("cgroup.subtree_control"));
                    let enabled = enabled.unwrap_or_default();
                    if hierarchy.dir.join(file).exists()
                        && enabled.split_whitespace().any(|c| c == controller)
                    {
                        return Ok("cgroup v2");
                    }
                    let why = missing.clone().or(down.clone());
                    Err(why
                        .unwrap_or_else(|| format!("`{}` does not hand on `{controller}`", base.display())))
                };
                self.memory = has("memory.max", "memory");
                self.processes = has("pids.max", "pids");
                (hierarchy.memory, hierarchy.processes) = (self.memory.is_ok(), self.processes.is_ok());
                self.hierarchies.push(hierarchy);
            }
        }
    }

    fn open_v1(&mut self, place: &Place, name: &str) {
        let has = |wanted: &str| place.controllers.iter().any(|controller| controller == wanted);
        let (memory, processes) = (
            has("memory") && self.memory.is_err(),
            has("pids") && self.processes.is_err(),
        );
        if !memory && !processes {
            return;
        }
        match own(&place.dir, name, false) {
            Err(why) => {
                if memory {
                    self.memory = Err(why.clone());
                }
                if processes {
                    self.processes = Err(why);
                }
            }
            Ok(mut hierarchy) => {
                (hierarchy.memory, hierarchy.processes) = (memory, processes);
                if memory {
                    self.memory = Ok("cgroup v1");
                }
                if processes {
                    self.processes = Ok("cgroup v1");
                }
                self.hierarchies.push(hierarchy);
            }
        }
    }

    /// The group of the second version that all commands are below, if there is one.
    pub fn v2(&self) -> Option<&Path> {
        let v2 = self.hierarchies.iter().find(|hierarchy| hierarchy.is_v2);
        v2.map(|hierarchy| hierarchy.dir.as_path())
    }

    /// Groups for one command; `always`: one of the second version whatever is asked for.
    pub fn make(&self, limits: &Limits, always: bool) -> io::Result<Group> {
        let name = self.next.fetch_add(1, Ordering::SeqCst).to_string();
        let mut group = Group { parts: Vec::new() };
        for hierarchy in &self.hierarchies {
            let memory = limits.memory.filter(|_| hierarchy.memory);
            let processes = limits.processes.filter(|_| hierarchy.processes);
            let tree = hierarchy.is_v2 && (limits.tree || always);
            if !tree && memory.is_none() && processes.is_none() {
                continue;
            }
            let dir = hierarchy.dir.join(&name);
            fs::create_dir(&dir)?;
            // From here on it goes with `group`.
            group.parts.push(Part {
                dir,
                is_v2: hierarchy.is_v2,
                memory,
                processes,
            });
            let part = &group.parts[group.parts.len() - 1];
            if let Some(bytes) = memory {
                part.limit_memory(bytes)?;
            }
            if let Some(processes) = processes {
                part.write("pids.max", &processes.to_string())?;
            }
        }
        Ok(group)
    }

    /// Ends all that is there and removes the groups.
    pub fn close(&self) {
        for hierarchy in &self.hierarchies {
            remove_tree(&hierarchy.dir);
        }
    }
}

/// Hands memory and processes on to the groups below; says why not.
fn enable(dir: &Path) -> Option<String> {
    let shown = |why: io::Error| format!("`{}/cgroup.subtree_control`: {why}", dir.display());
    let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    for controller in ["memory", "pids"] {
        if !available.split_whitespace().any(|name| name == controller) {
            // Said by whoever looks for its files.
            continue;
        }
        if enabled.split_whitespace().any(|name| name == controller) {
            continue;
        }
        let hand_on = || fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        let handed = match hand_on() {
            // A group with processes has no limits to hand on.
            Err(why) if why.kind() == io::ErrorKind::ResourceBusy => match step_aside(dir) {
                Ok(()) => hand_on(),
                Err(why) => return Some(why),
            },
            handed => handed,
        };
        if let Err(why) = handed {
            return Some(shown(why));
        }
    }
    None
}

/// Moves this program, and its parent if that is there too, one group down.
fn step_aside(dir: &Path) -> Result<(), String> {
    let shown = |why: io::Error| format!("`{}/{AGENT}`: {why}", dir.display());
    let there = fs::read_to_string(dir.join("cgroup.procs")).map_err(shown)?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    let ours = [Some(std::process::id() as i32), parent];
    let there: Vec<i32> = there.lines().filter_map(|line| line.parse().ok()).collect();
    if let Some(other) = there.iter().find(|&&pid| !ours.contains(&Some(pid))) {
        return Err(format!(
            "process {other} is in the group `{}` too; give this program a group of its own, as systemd does with \
             `Delegate=yes`",
            dir.display()
        ));
    }
    let aside = dir.join(AGENT);
    match fs::create_dir(&aside) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(shown(why)),
        _ => {}
    }
    for pid in there {
        fs::write(aside.join("cgroup.procs"), pid.to_string()).map_err(shown)?;
    }
    Ok(())
}

/// Makes this program's group in `base`, after removing those of programs that are no more.
fn own(base: &Path, name: &str, is_v2: bool) -> Result<Hierarchy, String> {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX));
        // Only whoever may make one may remove one, and end what is in it.
        let may = rustix::fs::access(base, rustix::fs::Access::WRITE_OK).is_ok();
        if is_ours
            && may
            && let Ok(lock) = File::open(entry.path())
            && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            remove_tree(&entry.path());
        }
    }
    let dir = base.join(name);
    let failed = |why: io::Error| format!("the group `{}` cannot be made: {why}", dir.display());
    // Another that starts beside this one may take it for left over before it is locked.
    for _ in 0..OWN_TRIES {
        if let Some(lock) = make_locked(&dir).map_err(failed)? {
            return Ok(Hierarchy {
                dir,
                is_v2,
                memory: false,
                processes: false,
                _lock: lock,
            });
        }
        thread::sleep(Duration::from_millis(5));
    }
    Err(failed(io::Error::other("others keep removing it")))
}

/// `None`: somebody was about to remove it, or has.
fn make_locked(dir: &Path) -> io::Result<Option<File>> {
    match fs::create_dir(dir) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => {}
    }
    let gone = |why: io::Error| match why.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::WouldBlock => Ok(None),
        _ => Err(why),
    };
    let lock = match File::open(dir) {
        Ok(lock) => lock,
        Err(why) => return gone(why),
    };
    if let Err(why) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        return gone(why.into());
    }
    match (fs::metadata(dir), lock.metadata()) {
        (Ok(there), Ok(held)) if there.ino() == held.ino() => Ok(Some(lock)),
        (Err(why), _) => gone(why),
        _ => Ok(None),
    }
}

/// Ends what is in a group and below it, and removes it.
fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    kill(dir);
    remove(dir);
}

fn kill(dir: &Path) {
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // The first version has only its list; what is born meanwhile is met the next time.
    for _ in 0..1000 {
        let there = pids(dir);
        if there.is_empty() {
            return;
        }
        for pid in there {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // Gone meanwhile is as good.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn pids(dir: &Path) -> Vec<i32> {
    let there = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    there.lines().filter_map(|line| line.parse().ok()).collect()
}

fn remove(dir: &Path) {
    let began = Instant::now();
    while let Err(why) = fs::remove_dir(dir) {
        if why.kind() == io::ErrorKind::NotFound {
            return;
        }
        // Busy: what was killed is on its way out. All else stays as it is.
        if why.kind() != io::ErrorKind::ResourceBusy || began.elapsed() > EMPTY_LIMIT {
            eprintln!("buildlet: the group `{}` cannot be removed: {why}", dir.display());
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The groups of one command; they go, with all that is in them, when this does.
pub struct Group {
    parts: Vec<Part>,
}

struct Part {
    dir: PathBuf,
    is_v2: bool,
    memory: Option<u64>,
    processes: Option<u64>,
}

impl Part {
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(self.dir.join(file))?
            .write_all(text.as_bytes())
    }

    fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.to_string();
        if self.is_v2 {
            self.write("memory.max", &bytes)?;
            self.write("memory.oom.group", "1")?;
        } else {
            self.write("memory.limit_in_bytes", &bytes)?;
        }
        // Memory moved to a disk counts, where it is moved there at all.
        let (swap, most) = if self.is_v2 {
            ("memory.swap.max", "0")
        } else {
            ("memory.memsw.limit_in_bytes", bytes.as_str())
        };
        match self.write(swap, most) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        }
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.dir.join(file)).ok()?.trim().parse().ok()
    }

    /// The number behind `key` in a file of such lines.
    fn counter(&self, file: &str, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.dir.join(file)).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }
}

impl Group {
    /// What a process writes `0` to, to be in it.
    pub fn doors(&self) -> io::Result<Vec<File>> {
        let open = |part: &Part| OpenOptions::new().write(true).open(part.dir.join("cgroup.procs"));
        self.parts.iter().map(open).collect()
    }

    /// Ends all that is in it, at once.
    pub fn kill(&self) {
        for part in &self.parts {
            kill(&part.dir);
        }
    }

    /// What it counted, once nothing runs in it.
    pub fn account(&self) -> Account {
        let mut account = Account::default();
        for part in &self.parts {
            let (peak, oom) = if part.is_v2 {
                ("memory.peak", "memory.events")
            } else {
                ("memory.max_usage_in_bytes", "memory.oom_control")
            };
            account.memory_peak = account.memory_peak.or_else(|| part.number(peak));
            let cpu = part.counter("cpu.stat", "usage_usec");
            account.cpu = account.cpu.or(cpu.map(Duration::from_micros));
            let over = |file, key| part.counter(file, key).is_some_and(|count| count > 0);
            if let Some(bytes) = part.memory.filter(|_| over(oom, "oom_kill")) {
                account
                    .reached
                    .push(format!("it reached its limit of {bytes} bytes of memory"));
            }
            if let Some(processes) = part.processes.filter(|_| over("pids.events", "max")) {
                account
                    .reached
                    .push(format!("it reached its limit of {processes} processes"));
            }
        }
        account
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        for part in &self.parts {
            remove(&part.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_that_start_at_once_have_a_group_each() {
        let opened: Vec<Groups> = thread::scope(|scope| {
            let open =
                |n: usize| scope.spawn(move || Groups::open(&format!("test-{}-{n}", std::process::id())));
            let all: Vec<_> = (0..8).map(open).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        let tree = opened[0].tree.is_ok();
        for groups in &opened {
            assert_eq!(groups.tree.is_ok(), tree, "{:?}", groups.tree);
            let there = groups.hierarchies.iter().all(|hierarchy| hierarchy.dir.is_dir());
            assert!(there);
            groups.close();
            assert!(groups.hierarchies.iter().all(|hierarchy| !hierarchy.dir.exists()));
        }
    }

    fn found(mountinfo: &str, groups: &str) -> Vec<(String, String)> {
        let found = places(mountinfo, groups).into_iter();
        found
            .map(|place| (place.controllers.join(","), place.dir.display().to_string()))
            .collect()
    }

    #[test]
    fn the_own_group_is_found_in_every_arrangement() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        // One hierarchy, as systemd has it.
        let mounts = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            found(mounts, "0::/system.slice/burrow.service\n"),
            [pair("", "/sys/fs/cgroup/system.slice/burrow.service")]
        );
        assert_eq!(found(mounts, "0::/\n"), [pair("", "/sys/fs/cgroup/")]);
        // Both versions beside each other.
        let mounts = "1 0 0:1 / / rw - ext4 /dev/vda rw\n\
                      30 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 29 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 29 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      33 29 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let groups = "4:memory:/a/b\n3:cpu,cpuacct:/\n2:name=systemd:/x\n0::/\n";
        let wanted = [
            pair("memory", "/sys/fs/cgroup/memory/a/b"),
            pair("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/"),
            pair("", "/sys/fs/cgroup/unified/"),
        ];
        assert_eq!(found(mounts, groups), wanted);
        // A container whose mount begins at its own group, and one that sees another's name for it.
        let mounts = "9 1 0:9 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(
            found(mounts, "0::/docker/abc/x\n"),
            [pair("", "/sys/fs/cgroup/x")]
        );
        assert_eq!(found(mounts, "0::/docker/abcd\n"), [pair("", "/sys/fs/cgroup/")]);
        assert_eq!(found("", "0::/\n"), []);
        assert_eq!(found(mounts, "odd\n"), []);
    }
}
