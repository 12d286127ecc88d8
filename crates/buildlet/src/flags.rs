use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::contain::{Bounds, Metadata, User};
use crate::exec::SPOOL_MAX;
use crate::form;
use crate::server::AtHalt;
use crate::trust::{Trust, parse_fingerprint};

const HELP: &str = "\
buildlet: runs what a burrow or Go coordinator sends to this machine

  buildlet -listen=127.0.0.1:5936 -workdir=/var/lib/buildlet/work
  buildlet -coordinator=farm.example.com:443 -enroll=be_...
  buildlet -coordinator=farm.example.com:443 -reverse-type=linux-arm64

Flags (one dash or two, `-flag=value` or `-flag value`):
  -listen ADDR          where to listen; port 0 takes a free one [localhost:5936; in GCE and
                        EC2 0.0.0.0:443 if there is a certificate, else 0.0.0.0:80]
  -reverse-type TYPE    dial in as a machine of this host type instead of listening; its key is the content of
                        $GO_BUILD_KEY_PATH, else of ~/.gobuildkey-TYPE
  -enroll TOKEN         make this machine known to the farm by a token of `burrow enroll new`, or @FILE with one, and dial
                        in with a key of its own; a token it was made known by already is passed over [$BURROW_ENROLL]
  -identity FILE        where that key is kept; without -reverse-type, dial in with it [$BURROW_IDENTITY, else ~/.burrow/identity]
  -coordinator ADDR     where to dial [localhost:8119]; $HTTPS_PROXY is used where it cannot be reached directly
  -hostname NAME        what this machine is called [$HOSTNAME, or the system's name]
  -ca-file FILE         believe a coordinator with a certificate of these authorities (PEM) [the public ones]
  -fingerprint SHA256   believe the coordinator with this certificate alone
  -insecure-dev         believe anybody, and show the public development key
  -workdir DIR          working directory; made if it is not there [a folder in the state folder]
  -state-dir DIR        output of commands, kept outside of the working directory [a private temporary folder]
  -password-file FILE   what callers must know; needed to listen beyond this machine [$META_PASSWORD]
  -report-file FILE     written once it listens: {\"address\",\"pid\",\"instance\"}
  -orphan-timeout TIME  end, with all commands, when nobody has asked for so long, as `90s` or `10m`
                        [0: never; with -reverse-type 10m]
  -max-output BYTES     a command that prints more is killed [4294967296]
  -max-memory BYTES     of one command with all it started; what asks for more gets this [no limit]
  -max-processes N      of one command, threads counted [no limit]
  -max-wall TIME        a command that runs for longer is killed [no limit]
  -no-network           commands have no network but themselves
  -confine              commands write below the working directory and nowhere else
  -build-user USER      commands run as this user, to whom the working directory is given; needs root
  -block-metadata       commands do not reach 169.254.169.254, where clouds tell secrets [in a cloud, if this can
                        be done]; -block-metadata=false: they do
  -health-addr ADDR     answer /healthz there too, without TLS or password
  -halt, -reboot        /halt powers the machine off, or reboots it [it ends this process alone]
  -version              print the version
  -help                 print this

What of these a machine cannot do is an error at the start; see docs/containment.md.

With $META_TLS_CERT and $META_TLS_KEY (PEM, or @FILE) it listens with TLS. In GCE and EC2 these and the password are
asked for there too, by the keys that golang/build gives them.

Exit codes: 0 after /halt or a signal to end, 2 wrong flags, 75 orphaned after dialling in, 78 refused by the coordinator or
settings that cannot be right (no key, a certificate that is not the one named), 1 all else.
";

/// What the program is told to be.
pub struct Flags {
    /// `None`: what fits the place.
    pub listen: Option<String>,
    pub workdir: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    pub password_file: Option<PathBuf>,
    pub report_file: Option<PathBuf>,
    pub orphan_timeout: Option<Duration>,
    pub health_addr: Option<String>,
    pub max_output: u64,
    pub bounds: Bounds,
    pub at_halt: AtHalt,
    pub reverse: Option<Reverse>,
}

/// Dial in, instead of listening.
pub struct Reverse {
    /// With a key of the machine's own it need not be given.
    pub host_type: Option<String>,
    pub coordinator: String,
    pub hostname: Option<String>,
    pub trust: Trust,
    /// The file of the machine's own key.
    pub identity: Option<PathBuf>,
    /// The token that makes it known.
    pub enroll: Option<String>,
}

/// `None`: what was asked for has been printed.
pub fn parse(args: Vec<OsString>) -> Result<Option<Flags>, String> {
    // Go's flags have one dash; to the parser here they have two.
    let twice = args.into_iter().map(|arg| match arg.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => {
            format!("-{text}").into()
        }
        _ => arg,
    });
    let mut flags = Flags {
        listen: None,
        workdir: None,
        state_dir: None,
        password_file: None,
        report_file: None,
        orphan_timeout: None,
        health_addr: None,
        max_output: SPOOL_MAX,
        bounds: Bounds::default(),
        at_halt: AtHalt::EndProcess,
        reverse: None,
    };
    let (mut reverse_type, mut coordinator, mut hostname) = (None, None, None);
    let (mut trust, mut orphan_timeout) = (Vec::new(), None);
    let (mut identity, mut enroll) = (None, None);
    let (mut halt, mut reboot) = (false, false);
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
            // Go's flags take `-halt` and `-halt=false`, never `-halt false`.
            "halt" => {
                halt = switch(parser.optional_value());
                continue;
            }
            "reboot" => {
                reboot = switch(parser.optional_value());
                continue;
            }
            "no-network" => {
                flags.bounds.limits.no_network = switch(parser.optional_value());
                continue;
            }
            "confine" => {
                flags.bounds.limits.confined = switch(parser.optional_value());
                continue;
            }
            "block-metadata" => {
                flags.bounds.metadata = match switch(parser.optional_value()) {
                    true => Metadata::Blocked,
                    false => Metadata::Open,
                };
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
            "listen" => {
                // Go's word for its default.
                flags.listen = match text()?.as_str() {
                    "AUTO" => None,
                    text => Some(text.to_owned()),
                }
            }
            "workdir" => flags.workdir = Some(value.into()),
            "state-dir" => flags.state_dir = Some(value.into()),
            "password-file" => flags.password_file = Some(value.into()),
            "report-file" => flags.report_file = Some(value.into()),
            "orphan-timeout" => orphan_timeout = Some(duration("-orphan-timeout", &text()?)?),
            "reverse-type" => reverse_type = Some(text()?),
            "identity" => identity = Some(PathBuf::from(value)),
            "enroll" => enroll = Some(text()?),
            "coordinator" => coordinator = Some(text()?),
            "health-addr" => flags.health_addr = Some(text()?),
            "max-output" => flags.max_output = number(&name, &text()?, "bytes")?,
            "max-memory" => flags.bounds.limits.memory = Some(number(&name, &text()?, "bytes")?),
            "max-processes" => flags.bounds.limits.processes = Some(number(&name, &text()?, "processes")?),
            "max-wall" => flags.bounds.limits.wall = duration("-max-wall", &text()?)?,
            "build-user" => {
                let found = User::find(&text()?);
                flags.bounds.user = Some(found.map_err(|why| format!("-build-user: {why}"))?);
            }
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
    let dials = dials || identity.is_some() || enroll.is_some();
    flags.reverse = match reverse_type.filter(|host_type| !host_type.is_empty()) {
        None if !dials => None,
        host_type => Some(Reverse {
            host_type: match host_type {
                Some(host_type) => Some(header_text("-reverse-type", host_type)?),
                None => None,
            },
            identity,
            enroll,
            coordinator: coordinator.unwrap_or_else(|| "localhost:8119".to_owned()),
            hostname: match hostname.filter(|name| !name.is_empty()) {
                Some(name) => Some(header_text("-hostname", name)?),
                None => None,
            },
            trust: trust.pop().unwrap_or(Trust::PublicRoots),
        }),
    };
    flags.at_halt = match (reboot, halt) {
        (true, _) => AtHalt::Reboot,
        (false, true) => AtHalt::PowerOff,
        (false, false) => AtHalt::EndProcess,
    };
    let default = flags.reverse.is_some().then_some(Duration::from_secs(600));
    flags.orphan_timeout = orphan_timeout.unwrap_or(default);
    Ok(Some(flags))
}

/// A flag without a value is on.
fn switch(value: Option<OsString>) -> bool {
    value.is_none_or(|value| form::is_true(value.to_str()))
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

fn number(flag: &str, text: &str, unit: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("-{flag}: `{text}` is no number of {unit}"))
}

fn duration(flag: &str, text: &str) -> Result<Option<Duration>, String> {
    let wrong = || format!("{flag}: `{text}` is no time; wanted `90s`, `10m`, `2h` or `0`");
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
