//! Commands that outlive the connection they were asked for on.
//!
//! Each has a name chosen by the caller, so that asking twice starts it once. Its output goes to a spool file;
//! readers follow the file from any byte. One that lives and dies with its connection has no spool: its output is
//! handed over as it comes, and it waits when nobody takes it. What a command leaves behind is ended with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, waitid, waitpid};

use crate::command::{CACHES, Plan, Refusal, Spec, Surroundings};
use crate::contain::{self, Account, Cage, Containment, Limits, as_builder};
use crate::strays::{self, Owner, Process};

/// How long after TERM a process is sent KILL, and how long output is waited for after a command's end.
pub const GRACE: Duration = Duration::from_secs(5);

/// What a command started gets to end by itself after it: the `tee` of a shell's pipeline, as a rule.
const STRAY_GRACE: Duration = Duration::from_secs(1);

/// How long an ended command is remembered if nobody deletes it.
const REMEMBER: Duration = Duration::from_secs(600);

/// What a command may print ahead of whoever reads it. Source: Linux grants no more without rights.
#[cfg(target_os = "linux")]
const PIPE: usize = 1 << 20;

/// Bytes that are put into a spool at once.
const COPIED: usize = 256 * 1024;

/// Of what was left behind so many are named: they go into a trailer, which no client takes at any length.
const NAMED: usize = 50;

/// A command that prints more, in bytes, is killed.
pub const SPOOL_MAX: u64 = 4 << 30;

/// All commands of this process.
pub struct Execs {
    dir: PathBuf,
    workdir: PathBuf,
    /// In the environment of all commands, before their names.
    instance: String,
    spool_max: u64,
    containment: Arc<Containment>,
    known: Mutex<BTreeMap<String, Arc<Exec>>>,
    leaders: Leaders,
}

/// The commands started and not yet waited for. Locked while one is started and while strays are looked
/// for, so that no command is ever taken for a stray.
type Leaders = Arc<Mutex<BTreeSet<i32>>>;

/// One command, running or ended.
pub struct Exec {
    /// `None`: whoever started it takes the output.
    spool: Option<PathBuf>,
    spool_max: u64,
    /// `BURROW_EXEC=INSTANCE.NAME`
    mark: String,
    state: Mutex<State>,
    changed: Condvar,
    leaders: Leaders,
}

#[derive(Default)]
struct State {
    /// Bytes of output in the spool.
    bytes: u64,
    /// Where output goes; `None` once it has ended, and where there is no spool.
    file: Option<File>,
    /// Without a spool: what this program has to say within the output, and nobody has taken yet.
    notes: Vec<u8>,
    /// All output has been read, or nobody reads it any more.
    drained: bool,
    /// Since when more output is waited for; `None` while some is there and has not been taken.
    starved: Option<Instant>,
    end: Option<End>,
    /// The leader of its session and group, until it has been waited for: from then on another may have
    /// its number.
    leader: Option<Pid>,
    /// What it takes to see it to its end, until somebody does: whoever takes the output, or whoever wants it to
    /// end.
    unseen: Option<Unseen>,
    /// It has ended by itself or been killed; what it left behind may be there yet.
    exited: bool,
    /// What it is kept within, while it runs.
    cage: Option<Arc<Cage>>,
    /// What the cage counted, once it is closed.
    account: Account,
    /// Somebody wants it to end.
    killed: bool,
    /// It was killed for this, which is its author's affair.
    why: Option<String>,
    /// Output was lost, which is this machine's.
    lost: Option<String>,
}

/// A command that nobody waits for yet.
struct Unseen {
    child: Child,
    began: Instant,
}

/// A command that has ended and left nothing behind.
pub struct Reaped {
    status: io::Result<ExitStatus>,
    began: Instant,
}

/// How far a command is.
#[derive(Debug)]
pub struct Progress {
    /// Bytes of output.
    pub bytes: u64,
    pub end: Option<End>,
}

#[derive(Debug, Clone)]
pub struct End {
    pub outcome: Outcome,
    pub exit: Option<i32>,
    pub signal: Option<i32>,
    pub wall: Duration,
    /// What it left behind and was killed: `NAME (PID)`.
    pub strays: Vec<String>,
    pub account: Account,
    at: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `ok`, `exit status 1`, `signal: killed`, or why it was not started.
    State(String),
    /// This machine failed it, and why: how it would have ended is not known.
    Lost(String),
}

impl Execs {
    /// `dir` holds the spools; what an earlier process left there is deleted.
    pub fn open(
        dir: PathBuf,
        workdir: PathBuf,
        instance: String,
        spool_max: u64,
        containment: Arc<Containment>,
    ) -> io::Result<Execs> {
        match fs::remove_dir_all(&dir) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        fs::create_dir_all(&dir)?;
        // Commands have no business in each other's output.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        // Those whose parents die come to us, and can be found.
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(Execs {
            dir,
            workdir,
            instance,
            spool_max,
            containment,
            known: Mutex::default(),
            leaders: Leaders::default(),
        })
    }

    /// Starts the command unless one of that name is known. `true`: started now.
    pub fn start(&self, id: &str, spec: &Spec) -> Result<bool, Refusal> {
        let mut known = self.room();
        if known.contains_key(id) {
            return Ok(false);
        }
        // It goes on without whoever sent it, and so must end surely, where that can be had.
        let mut spec = spec.clone();
        spec.limits.tree |= self.containment.abilities().tree.is_ok();
        let (exec, output) = self.exec(id, &spec, Some(self.dir.join(id)))?;
        if let Some(output) = output {
            let exec = exec.clone();
            thread::spawn(move || exec.copy(output));
        }
        known.insert(id.to_owned(), exec);
        Ok(true)
    }

    /// Starts a command of a new name, whose output the caller takes; without any if it could not be started.
    pub fn start_tied(&self, id: &str, spec: &Spec) -> Result<(Arc<Exec>, Option<PipeReader>), Refusal> {
        let mut known = self.room();
        let (exec, output) = self.exec(id, spec, None)?;
        known.insert(id.to_owned(), exec.clone());
        Ok((exec, output))
    }

    /// What is known, after what need not be any more has been forgotten.
    fn room(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        {
            let leaders = self.leaders.lock().expect("no holder panics");
            reap(&leaders, &strays::adopted(&leaders));
        }
        let mut known = self.known.lock().expect("no holder panics");
        known.retain(|_, exec| !exec.is_forgotten());
        known
    }

    pub fn get(&self, id: &str) -> Option<Arc<Exec>> {
        self.known.lock().expect("no holder panics").get(id).cloned()
    }

    /// Kills the command and waits for its end; one that has ended is forgotten. `false`: unknown.
    pub fn delete(&self, id: &str) -> bool {
        let Some(exec) = self.get(id) else { return false };
        if exec.progress().end.is_some() {
            self.known.lock().expect("no holder panics").remove(id);
        } else {
            exec.kill();
        }
        true
    }

    pub fn kill_all(&self) {
        let known = self.known.lock().expect("no holder panics");
        let all: Vec<_> = known.values().cloned().collect();
        drop(known);
        // Together: each may take its grace.
        thread::scope(|scope| {
            for exec in &all {
                scope.spawn(|| exec.kill());
            }
        });
    }

    /// Starts what is no command and must not be taken for what one left behind. Its environment is its own
    /// affair, but [`Execs::env`] marks it for its end.
    pub fn beside(&self, name: &str, mut command: Command) -> Result<Beside, Refusal> {
        let limits = Limits {
            tree: self.containment.abilities().tree.is_ok(),
            ..Limits::default()
        };
        in_own_session(&mut command);
        let cage = self.containment.cage(&limits, &mut command)?;
        let mut leaders = self.leaders.lock().expect("no holder panics");
        let child = command.spawn().map_err(|why| Refusal(500, why.to_string()))?;
        leaders.insert(Pid::from_child(&child).as_raw_nonzero().get());
        drop(leaders);
        Ok(Beside {
            child,
            cage,
            mark: format!("BURROW_EXEC={}.{name}", self.instance),
            leaders: self.leaders.clone(),
        })
    }

    /// The environment that a command of that name would have.
    pub fn env(&self, name: &str) -> io::Result<Vec<(String, String)>> {
        let spec = Spec {
            cmd: "/bin/sh".to_owned(),
            system: true,
            ..Spec::default()
        };
        let plan = self
            .plan(name, &spec)
            .map_err(|Refusal(_, why)| io::Error::other(why))?;
        Ok(plan.env)
    }

    /// `(name, running, bytes)`
    pub fn list(&self) -> Vec<(String, bool, u64)> {
        let known = self.known.lock().expect("no holder panics");
        let one = |(id, exec): (&String, &Arc<Exec>)| {
            let progress = exec.progress();
            (id.clone(), progress.end.is_none(), progress.bytes)
        };
        known.iter().map(one).collect()
    }

    fn exec(&self, id: &str, spec: &Spec, spool: Option<PathBuf>) -> Result<Started, Refusal> {
        let plan = self.plan(id, spec)?;
        let exec = Arc::new(Exec {
            spool,
            spool_max: spec
                .limits
                .output
                .map_or(self.spool_max, |most| most.min(self.spool_max)),
            mark: format!("BURROW_EXEC={}.{id}", self.instance),
            state: Mutex::default(),
            changed: Condvar::new(),
            leaders: self.leaders.clone(),
        });
        let output = exec.start(&plan, spec, &self.containment)?;
        Ok((exec, output))
    }

    /// What to run, in a working directory that is there.
    fn plan(&self, id: &str, spec: &Spec) -> Result<Plan, Refusal> {
        self.containment
            .make_workdir()
            .map_err(|why| Refusal(500, format!("cannot make the working directory: {why}")))?;
        let theirs = as_builder(&self.containment)
            .map_err(|why| Refusal(500, format!("cannot become the commands' user: {why}")))?;
        for (_, folder) in CACHES {
            let folder = self.workdir.join(folder);
            fs::create_dir_all(&folder)
                .map_err(|why| Refusal(500, format!("cannot make `{}`: {why}", folder.display())))?;
        }
        drop(theirs);
        let mark = ("BURROW_EXEC".to_owned(), format!("{}.{id}", self.instance));
        let env = std::env::vars_os();
        Plan::new(
            spec,
            Surroundings {
                workdir: &self.workdir,
                env: env
                    .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
                    .chain(self.containment.env())
                    .collect(),
                runs: &runs,
                bootstrap: self.workdir.join("go1.4").is_dir(),
                mark,
            },
        )
    }
}

/// A command and its output; without any if it could not be started.
type Started = (Arc<Exec>, Option<PipeReader>);

fn runs(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Something that runs beside the commands, with all it started.
pub struct Beside {
    child: Child,
    cage: Cage,
    mark: String,
    leaders: Leaders,
}

impl Beside {
    /// Ends all of it, and waits for that, at most 5 s.
    pub fn end(mut self) {
        let pid = Pid::from_child(&self.child);
        let leader = pid.as_raw_nonzero().get();
        // Gone already is as good, here and below.
        let _ = kill_process_group(pid, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        loop {
            self.cage.kill();
            let leaders = self.leaders.lock().expect("no holder panics");
            let table = strays::adopted(&leaders);
            reap(&leaders, &table);
            let owner = Owner {
                leader,
                mark: &self.mark,
                adopter: std::process::id() as i32,
                leaders: &leaders,
            };
            let left = strays::of(&owner, &table, |pid| strays::is_marked(pid, owner.mark));
            drop(leaders);
            for process in &left {
                strays::signal(process, Signal::KILL);
            }
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = kill_process_group(pid, Signal::KILL);
        let mut leaders = self.leaders.lock().expect("no holder panics");
        let _ = self.child.wait();
        leaders.remove(&leader);
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // A spool that stays is deleted at the next start.
        let _ = self.spool.as_ref().map(fs::remove_file);
    }
}

impl Exec {
    fn start(
        self: &Arc<Exec>,
        plan: &Plan,
        spec: &Spec,
        containment: &Containment,
    ) -> Result<Option<PipeReader>, Refusal> {
        let failed = |what: &str, why: io::Error| Refusal(500, format!("cannot {what}: {why}"));
        if let Some(spool) = &self.spool {
            let file = File::create(spool).map_err(|why| failed("make the spool", why))?;
            self.state().file = Some(file);
        }
        if spec.debug {
            self.append(plan.banner().as_bytes());
        }
        let (output, input) = io::pipe().map_err(|why| failed("make a pipe", why))?;
        // A smaller one is as good, and slower.
        #[cfg(target_os = "linux")]
        let _ = rustix::pipe::fcntl_setpipe_size(&output, PIPE);
        let error = input.try_clone().map_err(|why| failed("make a pipe", why))?;
        let mut command = Command::new(&plan.program);
        command
            .args(&plan.args[1..])
            .env_clear()
            .envs(plan.env.iter().map(|(key, value)| (key, value)))
            .current_dir(&plan.dir)
            .stdin(Stdio::null())
            .stdout(input)
            .stderr(error);
        in_own_session(&mut command);
        let cage = Arc::new(containment.cage(&spec.limits, &mut command)?);
        self.state().cage = Some(cage.clone());
        let began = Instant::now();
        self.state().starved = Some(began);
        let mut leaders = self.leaders.lock().expect("no holder panics");
        let started = spawn(&mut command);
        // The pipe's writing end lives in `command`: it must go, or the output never ends.
        drop(command);
        let child = match started {
            Ok(child) => child,
            Err(why) => {
                let text = not_started(plan, &why);
                let outcome = if for_want(&why) || contain::is_uncaged(&why) {
                    Outcome::Lost(text)
                } else {
                    Outcome::State(text)
                };
                self.end(outcome, None, Duration::ZERO, Vec::new());
                return Ok(None);
            }
        };
        leaders.insert(Pid::from_child(&child).as_raw_nonzero().get());
        self.state().leader = Some(Pid::from_child(&child));
        drop(leaders);
        if self.state().lost.is_some() {
            self.signal(Signal::KILL);
        }
        let unseen = Unseen { child, began };
        if self.spool.is_none() && cage.limits.wall.is_none() && self.exit_notice().is_some() {
            self.state().unseen = Some(unseen);
        } else {
            self.see(unseen);
        }
        if let Some(wall) = cage.limits.wall {
            let exec = self.clone();
            thread::spawn(move || exec.limit(wall));
        }
        Ok(Some(output))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    pub fn progress(&self) -> Progress {
        progress(&self.state())
    }

    /// Waits until there is output past `offset` or the end, at most `limit`.
    pub fn wait_past(&self, offset: u64, limit: Duration) -> Progress {
        progress(&self.wait_while(limit, |state| state.bytes <= offset && state.end.is_none()))
    }

    /// Waits for the end, at most `limit`.
    pub fn wait_end(&self, limit: Duration) -> Progress {
        progress(&self.wait_while(limit, |state| state.end.is_none()))
    }

    fn wait_while(&self, limit: Duration, waiting: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self
            .changed
            .wait_timeout_while(self.state(), limit, |state| waiting(state));
        waited.expect("no holder panics").0
    }

    /// Opens the spool at a byte, for a reader of its own.
    pub fn reader(&self, offset: u64) -> io::Result<File> {
        let spool = self.spool.as_ref();
        let kept =
            spool.ok_or_else(|| io::Error::other("it goes to the connection that started the command"));
        let mut file = File::open(kept?)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    }

    /// For whoever takes the output: what can be read from as soon as the command has ended, which is to be told by
    /// [`Exec::ended`]; `None` where somebody else sees to that.
    pub fn exit_notice(&self) -> Option<OwnedFd> {
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{PidfdFlags, pidfd_open};
            let leader = self.state().leader?;
            pidfd_open(leader, PidfdFlags::empty()).ok()
        }
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// For whoever takes the output: the command has ended. One that left nothing behind is done with at once, and
    /// its caller is to [`Exec::conclude`] when its output is at its end.
    pub fn ended(self: &Arc<Exec>) -> Option<Reaped> {
        let unseen = self.state().unseen.take()?;
        let pid = Pid::from_child(&unseen.child).as_raw_nonzero().get();
        self.exited();
        if !self.strays(pid).is_empty() {
            self.see(unseen);
            return None;
        }
        let Unseen { child, began } = unseen;
        let status = self.reap(child);
        Some(Reaped { status, began })
    }

    /// For whoever takes the output: there is none, and more is waited for.
    pub fn starves(&self) {
        self.state().starved.get_or_insert_with(Instant::now);
    }

    /// For whoever takes the output: how many of `n` bytes that are there may be passed on.
    pub fn comes(&self, n: usize) -> usize {
        let mut state = self.state();
        state.starved = None;
        let (kept, too_much) = state.admit(n, self.spool_max);
        state.bytes += kept as u64;
        drop(state);
        if too_much {
            self.signal(Signal::KILL);
        }
        kept
    }

    /// Whether output has been waited for in vain for so long.
    pub fn starved(&self, limit: Duration) -> bool {
        self.state().starved.is_some_and(|since| since.elapsed() >= limit)
    }

    /// For whoever takes the output: it is at its end, or not wanted any more.
    pub fn drained(&self) {
        self.state().drained = true;
        self.changed.notify_all();
    }

    /// Reads what nobody wants, to its end.
    pub fn discard(&self, mut output: PipeReader) {
        // What cannot be read is at its end.
        let _ = io::copy(&mut output, &mut io::sink());
        self.drained();
    }

    /// For whoever takes the output: what this program says within it.
    pub fn notes(&self) -> Vec<u8> {
        std::mem::take(&mut self.state().notes)
    }

    /// TERM, then KILL, to the command and all it started in its group; returns when it has ended.
    pub fn kill(self: &Arc<Exec>) {
        let unseen = {
            let mut state = self.state();
            state.killed = true;
            state.unseen.take()
        };
        if let Some(unseen) = unseen {
            self.see(unseen);
        }
        for signal in [Signal::TERM, Signal::KILL] {
            self.signal(signal);
            if self.wait_while(GRACE, |state| state.end.is_none()).end.is_some() {
                return;
            }
        }
        // What it left behind is being ended, and its output waited for.
        drop(self.wait_while(3 * GRACE, |state| state.end.is_none()));
    }

    /// To the command's group, while the group's number is certain to be its.
    fn signal(&self, signal: Signal) {
        let cage = {
            let state = self.state();
            if let Some(leader) = state.leader {
                // Gone already is as good.
                let _ = kill_process_group(leader, signal);
            }
            state.cage.clone().filter(|_| signal == Signal::KILL)
        };
        if let Some(cage) = cage {
            cage.kill();
        }
    }

    fn is_forgotten(&self) -> bool {
        self.progress().end.is_some_and(|end| end.at.elapsed() > REMEMBER)
    }

    /// Kills the command if it runs for longer.
    fn limit(&self, wall: Duration) {
        let mut state = self.wait_while(wall, |state| !state.exited);
        if !state.exited {
            state.why = Some(format!("it ran for more than {} s", wall.as_secs()));
            drop(state);
            self.signal(Signal::KILL);
        }
    }

    fn copy(&self, mut output: PipeReader) {
        let mut piece = vec![0; COPIED];
        loop {
            match output.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => self.append(&piece[..n]),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => {
                    self.lose(format!("its output cannot be read: {why}"));
                    break;
                }
            }
        }
        self.drained();
    }

    /// Puts output into the spool. A command whose output cannot be kept has no result, and is killed.
    fn append(&self, bytes: &[u8]) {
        let mut state = self.state();
        if self.spool.is_none() {
            state.bytes += bytes.len() as u64;
            state.notes.extend_from_slice(bytes);
            return;
        }
        let (kept, too_much) = state.admit(bytes.len(), self.spool_max);
        let kept = &bytes[..kept];
        let Some(file) = state.file.as_mut() else { return };
        if let Err(why) = file.write_all(kept) {
            state.file = None;
            drop(state);
            return self.lose(format!(
                "its output cannot be kept on this machine: {}",
                plain(&why)
            ));
        }
        state.bytes += kept.len() as u64;
        drop(state);
        self.changed.notify_all();
        if too_much {
            self.signal(Signal::KILL);
        }
    }

    fn lose(&self, why: String) {
        eprintln!("buildlet: command {} is lost: {why}", self.mark);
        self.state().lost.get_or_insert(why);
        self.signal(Signal::KILL);
    }

    /// Sees the command to its end in a thread of its own.
    fn see(self: &Arc<Exec>, unseen: Unseen) {
        let exec = self.clone();
        thread::spawn(move || exec.wait(unseen));
    }

    /// Sees the command to its end, ends what it left behind, and only then waits for it: until then
    /// nobody else can have its number.
    fn wait(&self, Unseen { child, began }: Unseen) {
        let pid = Pid::from_child(&child);
        while let Err(rustix::io::Errno::INTR) =
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {}
        self.exited();
        let strays = self.end_strays(pid.as_raw_nonzero().get());
        let status = self.reap(child);
        let all = self.all_is_read();
        self.conclude(Reaped { status, began }, &strays, all);
    }

    fn exited(&self) {
        self.state().exited = true;
        self.changed.notify_all();
    }

    fn reap(&self, mut child: Child) -> io::Result<ExitStatus> {
        let mut leaders = self.leaders.lock().expect("no holder panics");
        self.state().leader = None;
        let status = child.wait();
        leaders.remove(&Pid::from_child(&child).as_raw_nonzero().get());
        drop(leaders);
        // What was not found ends here, where there is a cage.
        let cage = self.state().cage.take();
        if let Some(cage) = cage {
            self.state().account = cage.close();
        }
        status
    }

    /// Says how it ended. `all`: its output is at its end.
    pub fn conclude(&self, Reaped { status, began }: Reaped, strays: &[Process], all: bool) {
        let wall = began.elapsed();
        let mut names: Vec<String> = strays
            .iter()
            .take(NAMED)
            .map(|stray| format!("{} ({})", stray.name, stray.pid))
            .collect();
        if strays.len() > NAMED {
            names.push(format!("and {} more", strays.len() - NAMED));
        }
        if !all {
            self.append(
                b"\nburrow: a process that cannot be found holds the output open; it is not waited for\n",
            );
        }
        if !names.is_empty() {
            let text = format!(
                "\nburrow: processes were left behind and have been killed: {}\n",
                names.join(", ")
            );
            self.append(text.as_bytes());
        }
        let account = std::mem::take(&mut self.state().account);
        for reached in &account.reached {
            self.append(format!("\nburrow: {reached}\n").as_bytes());
        }
        let (why, lost) = {
            let state = self.state();
            (state.why.clone(), state.lost.clone())
        };
        if let Some(why) = &why {
            self.append(format!("\nburrow: killed: {why}\n").as_bytes());
        }
        let outcome = match (lost, why, &status) {
            (Some(lost), ..) => Outcome::Lost(lost),
            (None, _, Err(why)) => Outcome::Lost(format!("it cannot be waited for: {why}")),
            (None, Some(why), Ok(_)) => Outcome::State(format!("signal: killed ({why})")),
            (None, None, Ok(status)) => Outcome::State(with_reached(describe(*status), &account)),
        };
        self.state().account = account;
        self.end(outcome, status.ok(), wall, names);
    }

    /// Waits for the end of the output of a command that has ended; in vain where a process that was not found
    /// holds it open. Whoever takes it may take long; more of it is waited for only so long.
    fn all_is_read(&self) -> bool {
        let ended = Instant::now();
        let mut state = self.state();
        while !state.drained {
            let starved = if state.killed { Some(ended) } else { state.starved };
            let waited = starved.map_or(Duration::ZERO, |since| since.max(ended).elapsed());
            let Some(left) = GRACE.checked_sub(waited) else {
                return false;
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .expect("no holder panics")
                .0;
        }
        true
    }

    /// The processes that the command has left behind and that still run.
    fn strays(&self, leader: i32) -> Vec<Process> {
        let leaders = self.leaders.lock().expect("no holder panics");
        let table = strays::adopted(&leaders);
        reap(&leaders, &table);
        let owner = Owner {
            leader,
            mark: &self.mark,
            adopter: std::process::id() as i32,
            leaders: &leaders,
        };
        strays::of(&owner, &table, |pid| strays::is_marked(pid, owner.mark))
    }

    /// Ends the processes that the command left behind; returns those it had to kill.
    fn end_strays(&self, leader: i32) -> Vec<Process> {
        let gone_within = |limit: Duration| {
            let deadline = Instant::now() + limit;
            loop {
                let left = self.strays(leader);
                if left.is_empty() || Instant::now() >= deadline {
                    return left;
                }
                thread::sleep(Duration::from_millis(20));
            }
        };
        let killed = self.state().killed;
        let found = gone_within(if killed { Duration::ZERO } else { STRAY_GRACE });
        let mut left = found.clone();
        for (signal, limit) in [(Signal::TERM, GRACE), (Signal::KILL, GRACE)] {
            if left.is_empty() {
                break;
            }
            for process in &left {
                strays::signal(process, signal);
            }
            left = gone_within(limit);
        }
        found
    }

    fn end(&self, outcome: Outcome, status: Option<ExitStatus>, wall: Duration, strays: Vec<String>) {
        let mut state = self.state();
        let account = std::mem::take(&mut state.account);
        state.file = None;
        state.cage = None;
        state.end = Some(End {
            outcome,
            exit: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            wall,
            strays,
            account,
            at: Instant::now(),
        });
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    /// How many of `n` further bytes of output are within `max`, and whether this is the first time that not all
    /// are.
    fn admit(&mut self, n: usize, max: u64) -> (usize, bool) {
        let room = usize::try_from(max.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let too_much = n > room && self.why.is_none();
        if too_much {
            self.why = Some(format!("it printed more than {max} bytes"));
        }
        (n.min(room), too_much)
    }
}

/// A program just written may for a moment be held open by a command that is being started beside it.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..20 {
        match command.spawn() {
            Err(why) if why.kind() == io::ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(10));
            }
            started => return started,
        }
    }
    command.spawn()
}

fn progress(state: &State) -> Progress {
    Progress {
        bytes: state.bytes,
        end: state.end.clone(),
    }
}

/// A command leads a session of its own: it has no terminal, and can be found with all it started.
fn in_own_session(command: &mut Command) {
    let session = || {
        rustix::process::setsid()?;
        Ok(())
    };
    // SAFETY: it runs between fork and exec, where only what is safe in a signal handler may be done;
    // setsid is one system call.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(session);
    }
}

/// Waits for adopted processes that have ended.
fn reap(leaders: &BTreeSet<i32>, table: &[Process]) {
    for pid in strays::adopted_dead(std::process::id() as i32, leaders, table) {
        // Waited for meanwhile is as good.
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// A command that failed and had reached a limit failed by that, as far as can be told.
fn with_reached(state: String, account: &Account) -> String {
    match account.reached.first() {
        Some(reached) if state != "ok" => format!("{state} ({reached})"),
        _ => state,
    }
}

/// How a process ended, as Go prints it. Source: spec buildlet 1.4.
fn describe(status: ExitStatus) -> String {
    const NAMES: [&str; 16] = [
        "",
        "hangup",
        "interrupt",
        "quit",
        "illegal instruction",
        "trace/breakpoint trap",
        "aborted",
        "bus error",
        "floating point exception",
        "killed",
        "user defined signal 1",
        "segmentation fault",
        "user defined signal 2",
        "broken pipe",
        "alarm clock",
        "terminated",
    ];
    match (status.code(), status.signal()) {
        (Some(0), _) => "ok".to_owned(),
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let name = usize::try_from(signal).ok().and_then(|signal| NAMES.get(signal));
            let name = name.map_or_else(|| format!("signal {signal}"), |name| name.to_string());
            let dumped = if status.core_dumped() {
                " (core dumped)"
            } else {
                ""
            };
            format!("signal: {name}{dumped}")
        }
        (None, None) => "ended in a way unknown".to_owned(),
    }
}

/// Why a command was not started, as Go says it.
fn not_started(plan: &Plan, why: &io::Error) -> String {
    match fs::metadata(&plan.dir) {
        Err(why) => format!("chdir {}: {}", plan.dir.display(), plain(&why)),
        Ok(meta) if !meta.is_dir() => format!("chdir {}: not a directory", plan.dir.display()),
        Ok(_) => format!("fork/exec {}: {}", plan.program.display(), plain(why)),
    }
}

/// Whether the machine had not what it takes to start a process, which no program is to blame for.
fn for_want(why: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(why),
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC)
    )
}

/// An error of the system in Go's words, which are the C library's in lower case.
fn plain(why: &io::Error) -> String {
    let text = why.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_in_want_is_not_the_programs_fault() {
        use rustix::io::Errno;
        let error = |errno: Errno| io::Error::from(errno);
        for errno in [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE] {
            assert!(for_want(&error(errno)), "{errno}");
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC, Errno::TOOBIG] {
            assert!(!for_want(&error(errno)), "{errno}");
        }
        assert_eq!(plain(&error(Errno::NOEXEC)), "exec format error");
    }
}
