use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::dial::{Coordinator, Proxy, parse_address};
use crate::exec::Execs;
use crate::reverse::{self, Identity};
use crate::server::{Server, serve};
use crate::trust::{Trust, parse_fingerprint};

/// Exit codes for supervisors. Source: sysexits.h.
const TRY_AGAIN: u8 = 75;
const REFUSED: u8 = 78;

const HELP: &str = "\
buildlet: runs what a burrow or Go coordinator sends to this machine

  buildlet -listen=127.0.0.1:5936 -workdir=/var/lib/buildlet/work
  buildlet -coordinator=farm.example.com:443 -reverse-type=linux-arm64

Flags (one dash or two, `-flag=value` or `-flag value`):
  -listen ADDR          where to listen; port 0 takes a free one [localhost:5936]
  -reverse-type TYPE    dial in as a machine of this host type instead of listening; its key is the content of
                        $GO_BUILD_KEY_PATH, else of ~/.gobuildkey-TYPE
  -coordinator ADDR     where to dial [localhost:8119]; $HTTPS_PROXY is used where it cannot be reached directly
  -hostname NAME        what this machine is called [$HOSTNAME, or the system's name]
  -ca-file FILE         believe a coordinator with a certificate of these authorities (PEM) [the public ones]
  -fingerprint SHA256   believe the coordinator with this certificate alone
  -insecure-dev         believe anybody, and show the public development key
  -workdir DIR          working directory; made if it is not there [a folder in the state folder]
  -state-dir DIR        output of commands, kept outside of the working directory [a private temporary folder]
  -password-file FILE   what callers must know; needed to listen beyond this machine
  -report-file FILE     written once it listens: {\"address\",\"pid\",\"instance\"}
  -orphan-timeout TIME  end, with all commands, when nobody has asked for so long, as `90s` or `10m`
                        [0: never; with -reverse-type 10m]
  -halt=BOOL            accepted; /halt ends the process and never the machine
  -version              print the version
  -help                 print this

Exit codes: 0 after /halt, 2 wrong flags, 75 orphaned after dialling in, 78 refused by the coordinator, 1 all else.
";

struct Flags {
    listen: String,
    workdir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    password_file: Option<PathBuf>,
    report_file: Option<PathBuf>,
    orphan_timeout: Option<Duration>,
    reverse: Option<Reverse>,
}

/// Dial in, instead of listening.
struct Reverse {
    host_type: String,
    coordinator: String,
    hostname: Option<String>,
    trust: Trust,
}

/// Why the program ends, and with which code.
struct Failure(u8, String);

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure(1, text)
    }
}

/// The whole program. `args` without its own name.
pub fn main_with(args: Vec<OsString>) -> ExitCode {
    let flags = match parse(args) {
        Ok(Some(flags)) => flags,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("buildlet: {why}; see `buildlet -help`");
            return ExitCode::from(2);
        }
    };
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, why)) => {
            eprintln!("buildlet: {why}");
            ExitCode::from(code)
        }
    }
}

fn parse(args: Vec<OsString>) -> Result<Option<Flags>, String> {
    // Go's flags have one dash; to the parser here they have two.
    let twice = args.into_iter().map(|arg| match arg.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => {
            format!("-{text}").into()
        }
        _ => arg,
    });
    let mut flags = Flags {
        listen: "localhost:5936".to_owned(),
        workdir: None,
        state_dir: None,
        password_file: None,
        report_file: None,
        orphan_timeout: None,
        reverse: None,
    };
    let (mut reverse_type, mut coordinator, mut hostname) = (None, None, None);
    let (mut trust, mut orphan_timeout) = (Vec::new(), None);
    let mut parser = lexopt::Parser::from_args(twice);
    while let Some(arg) = parser.next().map_err(|why| why.to_string())? {
        let lexopt::Arg::Long(name) = arg else {
            return Err(arg.unexpected().to_string());
        };
        let name = name.to_owned();
        match name.as_str() {
            "help" => {
                print!("{HELP}");
                return Ok(None);
            }
            "version" => {
                println!("buildlet {} (protocol 27)", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            "halt" => {
                // Go's flags take `-halt` and `-halt=false`, never `-halt false`.
                let _ = parser.optional_value();
                continue;
            }
            "insecure-dev" => {
                trust.push(Trust::Anybody);
                continue;
            }
            _ => {}
        }
        let value = parser.value().map_err(|why| why.to_string())?;
        let text = || {
            value
                .to_str()
                .map(str::to_owned)
                .ok_or(format!("-{name}: `{}` is no text", value.display()))
        };
        match name.as_str() {
            "listen" => flags.listen = text()?,
            "workdir" => flags.workdir = Some(value.into()),
            "state-dir" => flags.state_dir = Some(value.into()),
            "password-file" => flags.password_file = Some(value.into()),
            "report-file" => flags.report_file = Some(value.into()),
            "orphan-timeout" => orphan_timeout = Some(duration(&text()?)?),
            "reverse-type" => reverse_type = Some(text()?),
            "coordinator" => coordinator = Some(text()?),
            "hostname" => hostname = Some(text()?),
            "ca-file" => trust.push(Trust::CaFile(value.into())),
            "fingerprint" => {
                let parsed = parse_fingerprint(&text()?);
                trust.push(Trust::Fingerprint(
                    parsed.ok_or("-fingerprint: wanted the 64 hex digits of a SHA-256")?,
                ));
            }
            _ => return Err(format!("there is no flag `-{name}`")),
        }
    }
    if trust.len() > 1 {
        return Err("-ca-file, -fingerprint and -insecure-dev exclude each other; give one".to_owned());
    }
    let dials = coordinator.is_some() || hostname.is_some() || !trust.is_empty();
    flags.reverse = match reverse_type.filter(|host_type| !host_type.is_empty()) {
        None if dials => return Err("to dial in, a -reverse-type is needed".to_owned()),
        None => None,
        Some(host_type) => Some(Reverse {
            host_type: header_text("-reverse-type", host_type)?,
            coordinator: coordinator.unwrap_or_else(|| "localhost:8119".to_owned()),
            hostname: match hostname.filter(|name| !name.is_empty()) {
                Some(name) => Some(header_text("-hostname", name)?),
                None => None,
            },
            trust: trust.pop().unwrap_or(Trust::PublicRoots),
        }),
    };
    let default = flags.reverse.is_some().then_some(Duration::from_secs(600));
    flags.orphan_timeout = orphan_timeout.unwrap_or(default);
    Ok(Some(flags))
}

/// What may stand in a header.
fn header_text(flag: &str, text: String) -> Result<String, String> {
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(text);
    }
    Err(format!(
        "{flag}: `{}` has spaces or odd characters",
        text.escape_default()
    ))
}

fn duration(text: &str) -> Result<Option<Duration>, String> {
    let wrong = || format!("-orphan-timeout: `{text}` is no time; wanted `90s`, `10m`, `2h` or `0`");
    if text == "0" {
        return Ok(None);
    }
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    Ok(Some(Duration::from_secs(
        number.checked_mul(scale).ok_or_else(wrong)?,
    )))
}

fn run(flags: Flags) -> Result<(), Failure> {
    let io =
        |what: &str, path: &Path, why: std::io::Error| format!("cannot {what} `{}`: {why}", path.display());
    let instance = random_hex(16)?;
    let state_dir = flags
        .state_dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("buildlet-{instance}")));
    let workdir = flags.workdir.clone().unwrap_or_else(|| state_dir.join("work"));
    private_dir(&state_dir).map_err(|why| io("make", &state_dir, why))?;
    fs::create_dir_all(&workdir).map_err(|why| io("make", &workdir, why))?;
    let workdir = workdir.canonicalize().map_err(|why| io("use", &workdir, why))?;
    let execs = Execs::open(state_dir.join("execs"), workdir.clone())
        .map_err(|why| io("use the state folder", &state_dir, why))?;
    match &flags.reverse {
        None => listen(&flags, workdir, instance, execs),
        Some(reverse) => {
            let server = Arc::new(Server::new(workdir, None, instance.clone(), execs));
            dial_in(reverse, &server, instance, flags.orphan_timeout)
        }
    }
}

fn listen(flags: &Flags, workdir: PathBuf, instance: String, execs: Execs) -> Result<(), Failure> {
    let io =
        |what: &str, path: &Path, why: std::io::Error| format!("cannot {what} `{}`: {why}", path.display());
    let password = match &flags.password_file {
        None => None,
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|why| io("read the password file", path, why))?;
            match text.trim() {
                "" => return Err(format!("the password file `{}` is empty", path.display()).into()),
                text => Some(text.to_owned()),
            }
        }
    };
    let mut addresses = flags.listen.to_socket_addrs().map_err(|why| {
        format!(
            "-listen: `{}` is no address: {why}; wanted HOST:PORT",
            flags.listen
        )
    })?;
    let loopback = addresses.next().is_some_and(|first| first.ip().is_loopback())
        && addresses.all(|address| address.ip().is_loopback());
    if password.is_none() && !loopback {
        let text = format!(
            "-listen: `{}` is reachable by others, and whoever reaches it runs commands; give a -password-file",
            flags.listen
        );
        return Err(text.into());
    }
    let listener = TcpListener::bind(&flags.listen).map_err(|why| {
        format!(
            "cannot listen at `{}`: {why}; another port, or 0 for a free one, with -listen",
            flags.listen
        )
    })?;
    let address = listener.local_addr().map_err(|why| why.to_string())?;
    let server = Arc::new(Server::new(workdir, password, instance.clone(), execs));
    if let Some(path) = &flags.report_file {
        let text = format!(
            "{{\"address\":\"{address}\",\"pid\":{},\"instance\":\"{instance}\"}}\n",
            std::process::id()
        );
        write_whole(path, &text).map_err(|why| io("write", path, why))?;
    }
    eprintln!("buildlet: listening at {address}");
    if let Some(limit) = flags.orphan_timeout {
        let server = server.clone();
        std::thread::spawn(move || server.end_when_orphaned(limit, 0));
    }
    serve(&server, &listener);
    Ok(())
}

/// Ends only when it is refused.
fn dial_in(
    reverse: &Reverse,
    server: &Arc<Server>,
    instance: String,
    orphan_timeout: Option<Duration>,
) -> Result<(), Failure> {
    let env = |name: &str| std::env::var(name).ok();
    let (host, port) = parse_address(&reverse.coordinator).ok_or_else(|| {
        format!(
            "-coordinator: `{}` is no address; wanted HOST:PORT",
            reverse.coordinator
        )
    })?;
    let proxy = env("HTTPS_PROXY")
        .or_else(|| env("https_proxy"))
        .unwrap_or_default();
    let spared = env("NO_PROXY").or_else(|| env("no_proxy")).unwrap_or_default();
    let coordinator = Arc::new(Coordinator {
        proxy: Proxy::parse(&proxy, &spared, &host),
        tls: Arc::new(reverse.trust.client_config()?),
        host,
        port,
    });
    let key = match reverse.trust {
        Trust::Anybody => reverse::development_key(&reverse.host_type),
        _ => reverse::read_key(&reverse.host_type, env)?,
    };
    let system = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let given = reverse
        .hostname
        .clone()
        .or_else(|| env("HOSTNAME"))
        .unwrap_or(system);
    let hostname: String = given.chars().filter(char::is_ascii_graphic).collect();
    let identity = Identity {
        host_type: reverse.host_type.clone(),
        hostname: if hostname.is_empty() {
            "buildlet".to_owned()
        } else {
            hostname
        },
        key,
        instance,
    };
    if let Some(limit) = orphan_timeout {
        let server = server.clone();
        std::thread::spawn(move || server.end_when_orphaned(limit, TRY_AGAIN.into()));
    }
    let refused = reverse::run(server, &coordinator, &identity);
    server.end();
    Err(Failure(REFUSED, refused.0))
}

/// Made for us alone: a fixed name in a shared folder could be planted by others.
fn private_dir(path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
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
