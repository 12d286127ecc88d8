use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::exec::Execs;
use crate::server::{Server, serve};

const HELP: &str = "\
buildlet: runs what a burrow or Go coordinator sends to this machine

  buildlet -listen=127.0.0.1:5936 -workdir=/var/lib/buildlet/work

Flags (one dash or two, `-flag=value` or `-flag value`):
  -listen ADDR          where to listen; port 0 takes a free one [localhost:5936]
  -workdir DIR          working directory; made if it is not there [a folder in the state folder]
  -state-dir DIR        output of commands, kept outside of the working directory [a private temporary folder]
  -password-file FILE   what callers must know; needed to listen beyond this machine
  -report-file FILE     written once it listens: {\"address\",\"pid\",\"instance\"}
  -orphan-timeout TIME  end, with all commands, when nobody has asked for so long, as `90s` or `10m` [0: never]
  -halt=BOOL            accepted; /halt ends the process and never the machine
  -version              print the version
  -help                 print this
";

struct Flags {
    listen: String,
    workdir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    password_file: Option<PathBuf>,
    report_file: Option<PathBuf>,
    orphan_timeout: Option<Duration>,
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
        Err(why) => {
            eprintln!("buildlet: {why}");
            ExitCode::FAILURE
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
    };
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
            "orphan-timeout" => flags.orphan_timeout = duration(&text()?)?,
            _ => return Err(format!("there is no flag `-{name}`")),
        }
    }
    Ok(Some(flags))
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

fn run(flags: Flags) -> Result<(), String> {
    let io =
        |what: &str, path: &Path, why: std::io::Error| format!("cannot {what} `{}`: {why}", path.display());
    let password = match &flags.password_file {
        None => None,
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|why| io("read the password file", path, why))?;
            match text.trim() {
                "" => return Err(format!("the password file `{}` is empty", path.display())),
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
        return Err(format!(
            "-listen: `{}` is reachable by others, and whoever reaches it runs commands; give a -password-file",
            flags.listen
        ));
    }
    let instance = random_hex(16)?;
    let state_dir = flags
        .state_dir
        .unwrap_or_else(|| std::env::temp_dir().join(format!("buildlet-{instance}")));
    let workdir = flags.workdir.unwrap_or_else(|| state_dir.join("work"));
    private_dir(&state_dir).map_err(|why| io("make", &state_dir, why))?;
    fs::create_dir_all(&workdir).map_err(|why| io("make", &workdir, why))?;
    let workdir = workdir.canonicalize().map_err(|why| io("use", &workdir, why))?;
    let listener = TcpListener::bind(&flags.listen).map_err(|why| {
        format!(
            "cannot listen at `{}`: {why}; another port, or 0 for a free one, with -listen",
            flags.listen
        )
    })?;
    let address = listener.local_addr().map_err(|why| why.to_string())?;
    let execs = Execs::open(state_dir.join("execs"), workdir.clone())
        .map_err(|why| io("use the state folder", &state_dir, why))?;
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
        std::thread::spawn(move || server.end_when_orphaned(limit));
    }
    serve(&server, &listener);
    Ok(())
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
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut buffer));
    read.map_err(|why| format!("cannot get randomness: {why}"))?;
    Ok(buffer.iter().map(|b| format!("{b:02x}")).collect())
}
