//! The program: makes what the flags say, and sees to its end.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::ServerConfig;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::contain::Containment;
use crate::dial::{Coordinator, Proxy, parse_address};
use crate::exec::Execs;
use crate::facts::Facts;
use crate::fetch::Fetcher;
use crate::flags::{self, Flags, Reverse};
use crate::identity::{self, Trouble};
use crate::leftover;
use crate::metadata::Metadata;
use crate::reverse::{self, Credential, Identity, Refusals};
use crate::server::{Server, Setup, serve, serve_health};
use crate::ssh::Ssh;
use crate::trust::{Trust, server_config};

/// Exit codes for supervisors. Source: sysexits.h.
const TRY_AGAIN: u8 = 75;
const REFUSED: u8 = 78;

/// Why the program ends, with which code, and after which pause: a supervisor may start it again at once.
struct Failure {
    code: u8,
    why: String,
    pause: Duration,
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure {
            code: 1,
            why,
            pause: Duration::ZERO,
        }
    }
}

/// Of what no new start would mend: a file that is not there, an address that is none.
fn settings(why: String) -> Failure {
    Failure {
        code: REFUSED,
        ..Failure::from(why)
    }
}

/// The whole program. `args` without its own name.
pub fn main_with(args: Vec<OsString>) -> ExitCode {
    let flags = match flags::parse(args) {
        Ok(Some(flags)) => flags,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("buildlet: {why}; see `buildlet -help`");
            return ExitCode::from(2);
        }
    };
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, why, pause }) => {
            eprintln!("buildlet: {why}");
            thread::sleep(pause);
            ExitCode::from(code)
        }
    }
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let io =
        |what: &str, path: &Path, why: std::io::Error| format!("cannot {what} `{}`: {why}", path.display());
    let reverse = match &flags.reverse {
        None => None,
        Some(reverse) => Some((coordinator(reverse).map_err(settings)?, reverse)),
    };
    let metadata = match &reverse {
        Some(_) => Metadata::default(),
        None => Metadata::find()?,
    };
    let password = match (&reverse, &flags.password_file) {
        // Whoever is dialled has proved who it is.
        (Some(_), _) => None,
        (None, None) => metadata.get("password")?,
        (None, Some(path)) => Some(read_password(path)?),
    };
    let instance = random_hex(16)?;
    let (state_dir, is_ours) = match &flags.state_dir {
        Some(dir) => (dir.clone(), false),
        None => (std::env::temp_dir().join(format!("buildlet-{instance}")), true),
    };
    let workdir = flags.workdir.clone().unwrap_or_else(|| state_dir.join("work"));
    // Whoever runs commands passes through it to the working directory.
    let mode = if flags.bounds.user.is_some() { 0o711 } else { 0o700 };
    private_dir(&state_dir, mode).map_err(|why| io("make", &state_dir, why))?;
    fs::create_dir_all(&workdir).map_err(|why| io("make", &workdir, why))?;
    let workdir = workdir.canonicalize().map_err(|why| io("use", &workdir, why))?;
    let refusals = Refusals(state_dir.join("refusals"));
    let reverse = match reverse {
        None => None,
        Some((coordinator, reverse)) => match who_we_are(reverse, &coordinator) {
            Ok(identity) => Some((coordinator, identity)),
            Err(Trouble::Here(why)) => return Err(settings(why)),
            Err(Trouble::Refused(refused)) => {
                return Err(Failure {
                    code: REFUSED,
                    why: refused.0,
                    pause: refusals.one_more(),
                });
            }
        },
    };
    own_alone(&workdir)?;
    let ended = leftover::end(&workdir, &instance);
    if !ended.is_empty() {
        eprintln!(
            "buildlet: ended what an earlier one left running: {}",
            ended.join(", ")
        );
    }
    let execs = state_dir.join("execs");
    let containment = Containment::open(flags.bounds.clone(), &workdir, &instance)?;
    let (dir, bound) = (workdir.clone(), flags.max_output);
    let execs = Execs::open(execs, dir, instance.clone(), bound, containment.clone())
        .map_err(|why| io("use the state folder", &state_dir, why))?;
    let own = reverse.as_ref().map(|(coordinator, _)| {
        (
            coordinator.host.clone(),
            coordinator.port,
            coordinator.tls.clone(),
        )
    });
    let server = Arc::new(Server::new(Setup {
        workdir,
        password,
        instance,
        execs,
        containment,
        facts: Facts::new(),
        ssh: Ssh::new(&state_dir),
        fetcher: Fetcher {
            public: Arc::new(Trust::PublicRoots.client_config()?),
            own,
        },
        at_halt: flags.at_halt,
        temporary: is_ours.then_some(state_dir),
    }));
    end_by_signal(&server)?;
    let asking = server.clone();
    thread::spawn(move || asking.look_for_tools());
    if let Some(address) = &flags.health_addr {
        let listener = bind(address, "-health-addr")?;
        thread::spawn(move || serve_health(&listener));
    }
    if let Some(limit) = flags.orphan_timeout {
        let (server, code) = (server.clone(), if reverse.is_some() { TRY_AGAIN } else { 0 });
        thread::spawn(move || server.end_when_orphaned(limit, code.into()));
    }
    match reverse {
        None => listen(flags, &server, &metadata),
        Some((coordinator, identity)) => {
            let refused = reverse::run(&server, &Arc::new(coordinator), &identity, &refusals);
            let pause = refusals.one_more();
            server.end();
            Err(Failure {
                code: REFUSED,
                why: refused.0,
                pause,
            })
        }
    }
}

fn listen(flags: &Flags, server: &Arc<Server>, metadata: &Metadata) -> Result<(), Failure> {
    let tls = listening_tls(metadata)?;
    let listen = match &flags.listen {
        Some(listen) => listen.as_str(),
        None => default_listen(metadata.is_in_a_cloud(), tls.is_some()),
    };
    let mut addresses = listen
        .to_socket_addrs()
        .map_err(|why| format!("-listen: `{listen}` is no address: {why}; wanted HOST:PORT"))?;
    let loopback = addresses.next().is_some_and(|first| first.ip().is_loopback())
        && addresses.all(|address| address.ip().is_loopback());
    if !server.has_password() && !loopback {
        let text = format!(
            "-listen: `{listen}` is reachable by others, and whoever reaches it runs commands; give a -password-file"
        );
        return Err(text.into());
    }
    let listener = bind(listen, "-listen")?;
    let address = listener.local_addr().map_err(|why| why.to_string())?;
    if let Some(path) = &flags.report_file {
        let (address, instance) = (address.to_string(), server.instance());
        let report = json!({"address": address, "pid": std::process::id(), "instance": instance});
        write_whole(path, &format!("{report}\n"))
            .map_err(|why| format!("cannot write `{}`: {why}", path.display()))?;
    }
    eprintln!("buildlet: listening at {address}");
    serve(server, &listener, tls.as_ref());
    Ok(())
}

fn bind(address: &str, flag: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|why| {
        format!("cannot listen at `{address}`: {why}; another port, or 0 for a free one, with {flag}")
    })
}

/// The first signal to end lets requests end; commands are killed.
fn end_by_signal(server: &Arc<Server>) -> Result<(), String> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|why| format!("cannot take signals: {why}"))?;
    let server = server.clone();
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            eprintln!("buildlet: told to end");
            server.stop();
        }
    });
    Ok(())
}

/// Where nothing is said. Source: golang/build `cmd/buildlet/buildlet.go`.
fn default_listen(in_a_cloud: bool, has_tls: bool) -> &'static str {
    match (in_a_cloud, has_tls) {
        (true, true) => "0.0.0.0:443",
        (true, false) => "0.0.0.0:80",
        (false, _) => "localhost:5936",
    }
}

/// TLS, where a certificate and its key are told.
fn listening_tls(metadata: &Metadata) -> Result<Option<Arc<ServerConfig>>, String> {
    match (metadata.get("tls-cert")?, metadata.get("tls-key")?) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => server_config(&cert, &key).map(Some),
        _ => Err("META_TLS_CERT and META_TLS_KEY belong together; one of them is missing".to_owned()),
    }
}

fn read_password(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let text =
        fs::read_to_string(path).map_err(|why| format!("cannot read the password file `{shown}`: {why}"))?;
    match text.trim() {
        "" => Err(format!("the password file `{shown}` is empty")),
        text => Ok(text.to_owned()),
    }
}

/// Takes the working directory for this process until it ends. Whoever is about to end gets a moment for it.
fn own_alone(workdir: &Path) -> Result<(), String> {
    let io = |why: std::io::Error| format!("cannot use `{}`: {why}", workdir.display());
    let folder = fs::File::open(workdir).map_err(io)?;
    for _ in 0..100 {
        match rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // Held for as long as this process is.
                std::mem::forget(folder);
                return Ok(());
            }
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(50)),
            Err(why) => return Err(io(why.into())),
        }
    }
    Err(format!(
        "another buildlet works in `{}`; give this one a folder of its own with -workdir",
        workdir.display()
    ))
}

fn coordinator(reverse: &Reverse) -> Result<Coordinator, String> {
    let (host, port) = parse_address(&reverse.coordinator).ok_or_else(|| {
        format!(
            "-coordinator: `{}` is no address; wanted HOST:PORT",
            reverse.coordinator
        )
    })?;
    Ok(Coordinator {
        proxy: Proxy::from_env(true, &host),
        tls: Arc::new(reverse.trust.client_config()?),
        host,
        port,
    })
}

/// What this machine registers as. Makes it known first, where it is to have a key of its own.
fn who_we_are(reverse: &Reverse, coordinator: &Coordinator) -> Result<Identity, Trouble> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let system = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let given = reverse
        .hostname
        .clone()
        .or_else(|| env("HOSTNAME"))
        .unwrap_or(system);
    let hostname: String = given.chars().filter(char::is_ascii_graphic).collect();
    let hostname = if hostname.is_empty() {
        "buildlet".to_owned()
    } else {
        hostname
    };
    let enroll = reverse.enroll.clone().or_else(|| env("BURROW_ENROLL"));
    let own = enroll.is_some() || reverse.identity.is_some() || env("BURROW_IDENTITY").is_some();
    let (host_type, credential) = match &reverse.host_type {
        Some(host_type) if !own => {
            let key = match reverse.trust {
                Trust::Anybody => reverse::development_key(host_type),
                _ => reverse::read_key(host_type, env).map_err(Trouble::Here)?,
            };
            (host_type.clone(), Credential::Key(key))
        }
        wanted => {
            if matches!(reverse.trust, Trust::Anybody) {
                // Whoever stands between could have this machine sign for it.
                let why =
                    "-insecure-dev and a key of the machine's own exclude each other; give -fingerprint";
                return Err(Trouble::Here(why.to_owned()));
            }
            let file = reverse
                .identity
                .clone()
                .unwrap_or_else(|| identity::default_file(env));
            let token = enroll
                .map(|given| identity::token(&given))
                .transpose()
                .map_err(Trouble::Here)?;
            let enrolled = identity::open(&file, token.as_deref(), coordinator, &hostname)?;
            let host_type = wanted.clone().unwrap_or(enrolled.host_type);
            (host_type, Credential::Own(enrolled.key))
        }
    };
    Ok(Identity {
        host_type,
        hostname,
        credential,
    })
}

/// Made for us alone: a fixed name in a shared folder could be planted by others.
fn private_dir(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::create_dir_all(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn random_hex(bytes: usize) -> Result<String, String> {
    let mut buffer = vec![0; bytes];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut buffer).map_err(|_| "there is no randomness to be had")?;
    Ok(buffer.iter().map(|b| format!("{b:02x}")).collect())
}
