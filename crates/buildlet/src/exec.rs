//! Commands that outlive the connection they were asked for on.
//!
//! Each has a name chosen by the caller, so that asking twice starts it once. Its output goes to a spool file;
//! readers follow the file from any byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long after TERM a command is sent KILL, and how long its output is waited for after its end.
const GRACE: Duration = Duration::from_secs(5);

/// How long an ended command is remembered if nobody deletes it.
const REMEMBER: Duration = Duration::from_secs(600);

/// Output past this is not kept on this machine; the command goes on.
const SPOOL_MAX: u64 = 4 << 30;

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    pub cmd: String,
    pub args: Vec<String>,
    pub dir: String,
    pub env: Vec<String>,
    pub path: Vec<String>,
    pub system: bool,
    pub debug: bool,
    pub wall: Option<Duration>,
}

/// Why a command was not started: a status of the answer and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal(pub u16, pub String);

/// All commands of this process.
pub struct Execs {
    dir: PathBuf,
    workdir: PathBuf,
    known: Mutex<BTreeMap<String, Arc<Exec>>>,
}

/// One command, running or ended.
pub struct Exec {
    spool: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    group: Pid,
}

#[derive(Debug, Clone, Default)]
pub struct State {
    /// Bytes of output in the spool.
    pub bytes: u64,
    pub end: Option<End>,
    /// Told to end.
    killed: bool,
}

#[derive(Debug, Clone)]
pub struct End {
    /// `ok`, `exit status 1`, `signal: killed`.
    pub state: String,
    pub exit: Option<i32>,
    pub wall: Duration,
    at: Instant,
}

impl Execs {
    /// `dir` holds the spools; what an earlier process left there is deleted.
    pub fn open(dir: PathBuf, workdir: PathBuf) -> io::Result<Execs> {
        match fs::remove_dir_all(&dir) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        fs::create_dir_all(&dir)?;
        Ok(Execs {
            dir,
            workdir,
            known: Mutex::default(),
        })
    }

    /// Starts the command unless one of that name is known. `true`: started now.
    pub fn start(&self, id: &str, spec: &Spec) -> Result<bool, Refusal> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if id.is_empty() || id.len() > 100 || !id.chars().all(plain) || id.starts_with('.') {
            let text =
                format!("`{id}` is no name of a command; wanted 1 to 100 of letters, digits, `.`, `_`, `-`");
            return Err(Refusal(400, text));
        }
        let mut known = self.known.lock().expect("no holder panics");
        known.retain(|_, exec| !exec.is_forgotten());
        if known.contains_key(id) {
            return Ok(false);
        }
        let exec = Exec::start(self.dir.join(id), &self.workdir, spec)?;
        known.insert(id.to_owned(), exec);
        Ok(true)
    }

    pub fn get(&self, id: &str) -> Option<Arc<Exec>> {
        self.known.lock().expect("no holder panics").get(id).cloned()
    }

    /// Kills the command and waits for its end; one that has ended is forgotten. `false`: unknown.
    pub fn delete(&self, id: &str) -> bool {
        let Some(exec) = self.get(id) else { return false };
        if exec.state().end.is_some() {
            self.known.lock().expect("no holder panics").remove(id);
        } else {
            exec.kill();
        }
        true
    }

    pub fn kill_all(&self) {
        let all: Vec<_> = self
            .known
            .lock()
            .expect("no holder panics")
            .values()
            .cloned()
            .collect();
        // Together: each may take its grace.
        let kills: Vec<_> = all
            .into_iter()
            .map(|exec| std::thread::spawn(move || exec.kill()))
            .collect();
        for kill in kills {
            // A panic there has ended that kill alone.
            let _ = kill.join();
        }
    }

    /// `(name, running, bytes)`
    pub fn list(&self) -> Vec<(String, bool, u64)> {
        let known = self.known.lock().expect("no holder panics");
        let one = |(id, exec): (&String, &Arc<Exec>)| {
            let state = exec.state();
            (id.clone(), state.end.is_none(), state.bytes)
        };
        known.iter().map(one).collect()
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // A spool that stays is deleted at the next start.
        let _ = fs::remove_file(&self.spool);
    }
}

impl Exec {
    fn start(spool: PathBuf, workdir: &Path, spec: &Spec) -> Result<Arc<Exec>, Refusal> {
        let (mut command, banner) = command(workdir, spec)?;
        let failed = |what: &str, why: io::Error| Refusal(500, format!("cannot {what}: {why}"));
        let mut file = File::create(&spool).map_err(|why| failed("make the spool", why))?;
        let (output, input) = io::pipe().map_err(|why| failed("make a pipe", why))?;
        let error = input.try_clone().map_err(|why| failed("make a pipe", why))?;
        command
            .stdin(Stdio::null())
            .stdout(input)
            .stderr(error)
            .process_group(0);
        if spec.debug {
            file.write_all(banner.as_bytes())
                .map_err(|why| failed("write the spool", why))?;
        }
        let bytes = if spec.debug { banner.len() as u64 } else { 0 };
        let started = Instant::now();
        let child = command.spawn();
        // The pipe's writing end lives in `command`: it must go, or the output never ends.
        drop(command);
        let (group, child) = match child {
            Ok(child) => (Pid::from_child(&child), Some(child)),
            Err(why) => {
                let text = format!("fork/exec {}: {}", spec.cmd, plain_error(&why));
                let exec = Exec {
                    spool,
                    state: Mutex::default(),
                    changed: Condvar::new(),
                    group: Pid::INIT,
                };
                exec.end(End {
                    state: text,
                    exit: None,
                    wall: Duration::ZERO,
                    at: Instant::now(),
                });
                return Ok(Arc::new(exec));
            }
        };
        let state = Mutex::new(State {
            bytes,
            ..State::default()
        });
        let exec = Arc::new(Exec {
            spool,
            state,
            changed: Condvar::new(),
            group,
        });
        let (copier, waiter) = (exec.clone(), exec.clone());
        let copy = std::thread::spawn(move || copier.copy(output, file));
        let wall = spec.wall;
        std::thread::spawn(move || {
            if let Some(child) = child {
                waiter.wait(child, started, wall, copy);
            }
        });
        Ok(exec)
    }

    pub fn state(&self) -> State {
        self.state.lock().expect("no holder panics").clone()
    }

    /// Waits until there is output past `offset` or the end, at most `limit`.
    pub fn wait_past(&self, offset: u64, limit: Duration) -> State {
        let state = self.state.lock().expect("no holder panics");
        let waiting = |state: &mut State| state.bytes <= offset && state.end.is_none();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, limit, waiting)
            .expect("no holder panics");
        state.clone()
    }

    /// Opens the spool for a reader of its own.
    pub fn reader(&self) -> io::Result<File> {
        File::open(&self.spool)
    }

    /// TERM, then KILL, to the command and all it started in its group; returns when it has ended.
    pub fn kill(&self) {
        self.state.lock().expect("no holder panics").killed = true;
        for signal in [Signal::TERM, Signal::KILL] {
            if self.state().end.is_some() {
                return;
            }
            // Gone already is as good.
            let _ = kill_process_group(self.group, signal);
            let state = self.state.lock().expect("no holder panics");
            let limit = GRACE + Duration::from_millis(500);
            let running = |state: &mut State| state.end.is_none();
            // A poisoned lock ends the program elsewhere.
            drop(self.changed.wait_timeout_while(state, limit, running));
        }
    }

    fn is_forgotten(&self) -> bool {
        self.state().end.is_some_and(|end| end.at.elapsed() > REMEMBER)
    }

    fn copy(&self, mut output: io::PipeReader, mut file: File) {
        let mut piece = vec![0; 64 * 1024];
        loop {
            match output.read(&mut piece) {
                Ok(0) => return,
                Ok(n) => {
                    let mut state = self.state.lock().expect("no holder panics");
                    if state.bytes < SPOOL_MAX && file.write_all(&piece[..n]).is_ok() {
                        state.bytes += n as u64;
                        self.changed.notify_all();
                    }
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn wait(
        &self,
        mut child: Child,
        started: Instant,
        wall: Option<Duration>,
        copy: std::thread::JoinHandle<()>,
    ) {
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Err(why) => break Err(why),
                Ok(None) => {}
            }
            if wall.is_some_and(|wall| started.elapsed() >= wall) {
                let _ = kill_process_group(self.group, Signal::KILL);
            }
            // Blocking in `wait` would leave no one for the wall limit; a short look costs nothing.
            let pause = if started.elapsed() < Duration::from_millis(200) {
                1
            } else {
                20
            };
            std::thread::sleep(Duration::from_millis(pause));
        };
        // What it left behind in its group holds the output open and the working directory in use.
        let strays = rustix::process::test_kill_process_group(self.group).is_ok();
        if strays {
            let _ = kill_process_group(self.group, Signal::TERM);
            let deadline = Instant::now() + GRACE;
            while Instant::now() < deadline && rustix::process::test_kill_process_group(self.group).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = kill_process_group(self.group, Signal::KILL);
        }
        let deadline = Instant::now() + GRACE;
        while !copy.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let wall = started.elapsed();
        let (state, exit) = match status {
            Ok(status) => (describe(status), status.code()),
            Err(why) => (format!("cannot be waited for: {why}"), None),
        };
        self.end(End {
            state,
            exit,
            wall,
            at: Instant::now(),
        });
    }

    fn end(&self, end: End) {
        self.state.lock().expect("no holder panics").end = Some(end);
        self.changed.notify_all();
    }
}

/// As Go prints it. Source: spec buildlet 1.4.
fn describe(status: std::process::ExitStatus) -> String {
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
            let name = NAMES
                .get(signal as usize)
                .map_or_else(|| format!("signal {signal}"), |name| name.to_string());
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

fn plain_error(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => why.to_string(),
    }
}

/// The command with directory and environment, and what `debug` prints. Rules: spec buildlet 1.4, 2023.
fn command(workdir: &Path, spec: &Spec) -> Result<(Command, String), Refusal> {
    let program = program(workdir, spec)?;
    let dir = if !spec.dir.is_empty() {
        if Path::new(&spec.dir).is_absolute() {
            PathBuf::from(&spec.dir)
        } else {
            workdir
                .join(crate::files::relative(&spec.dir).map_err(|why| Refusal(400, format!("'dir': {why}")))?)
        }
    } else if spec.system {
        workdir.to_owned()
    } else {
        program.parent().unwrap_or(workdir).to_owned()
    };
    let mut env: BTreeMap<String, String> = std::env::vars()
        .filter(|(key, _)| {
            !["BURROW_", "META_", "GO_BUILD_KEY"]
                .iter()
                .any(|secret| key.starts_with(secret))
        })
        .collect();
    env.insert("WORKDIR".to_owned(), workdir.display().to_string());
    for pair in &spec.env {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        env.insert(key.to_owned(), value.to_owned());
    }
    for (key, folder) in [
        ("TMPDIR", "tmp"),
        ("GOCACHE", "gocache"),
        ("GOPLSCACHE", "goplscache"),
    ] {
        let folder = workdir.join(folder);
        fs::create_dir_all(&folder)
            .map_err(|why| Refusal(500, format!("cannot make {}: {why}", folder.display())))?;
        env.insert(key.to_owned(), folder.display().to_string());
    }
    if !spec.path.is_empty() {
        let old = env.get("PATH").cloned().unwrap_or_default();
        let expand = |element: &String| {
            let element = element.replace("$PATH", &old).replace("$EMPTY", "");
            element.replace("$WORKDIR", &workdir.display().to_string())
        };
        let path: Vec<String> = spec
            .path
            .iter()
            .map(expand)
            .filter(|element| !element.is_empty())
            .collect();
        env.insert("PATH".to_owned(), path.join(":"));
    }
    env.insert("PWD".to_owned(), dir.display().to_string());
    let mut args = vec![program.display().to_string()];
    args.extend(spec.args.iter().cloned());
    let quoted = |list: &mut dyn Iterator<Item = String>| {
        list.map(|item| format!("{item:?}")).collect::<Vec<_>>().join(" ")
    };
    let banner = format!(
        ":: Running {} with args [{}] and env [{}] in dir {}\n\n",
        program.display(),
        quoted(&mut args.iter().cloned()),
        quoted(&mut env.iter().map(|(key, value)| format!("{key}={value}"))),
        dir.display()
    );
    let mut command = Command::new(&program);
    command.args(&spec.args).env_clear().envs(env).current_dir(dir);
    Ok((command, banner))
}

fn program(workdir: &Path, spec: &Spec) -> Result<PathBuf, Refusal> {
    let cmd = &spec.cmd;
    if cmd.is_empty() {
        return Err(Refusal(400, "invalid 'cmd' parameter: it is empty".to_owned()));
    }
    if Path::new(cmd).is_absolute() {
        return Ok(PathBuf::from(cmd));
    }
    if cmd.contains('/') {
        if spec.system {
            return Err(Refusal(
                400,
                format!(
                    "invalid 'cmd' parameter: `{cmd}` is relative; a system command is absolute or a bare name"
                ),
            ));
        }
        let path = crate::files::relative(cmd)
            .map_err(|why| Refusal(400, format!("invalid 'cmd' parameter: {why}")))?;
        return Ok(workdir.join(path));
    }
    let mut folders: Vec<PathBuf> = if spec.system {
        Vec::new()
    } else {
        vec![workdir.to_owned()]
    };
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    let runs = |path: &PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = folders.into_iter().map(|folder| folder.join(cmd)).find(runs);
    found.ok_or_else(|| Refusal(422, format!("invalid 'cmd' parameter: command {cmd:?} not found")))
}
