use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::Arg::{Long, Value};
use lexopt::ValueExt as _;

use crate::kept::Folder;
use crate::manifest::Version;
use crate::settings::{self, Source};
use crate::{drive, metadata, publish};

/// Source: sysexits.h.
const BAD_SETTINGS: u8 = 78;

const DEFAULT_FILE: &str = if cfg!(windows) {
    r"C:\ProgramData\burrow\stage0.conf"
} else {
    "/etc/burrow/stage0.conf"
};

/// Where both clouds have their metadata server.
const METADATA_ADDRESS: &str = "169.254.169.254";

const HELP: &str = "\
stage0: fetches the buildlet that its owner signed, keeps the last good one, and runs it

  stage0 [--config FILE] [-- BUILDLET-ARGUMENT...]
  stage0 --untar-file FILE --untar-dest-dir DIR
  stage0 new-key FILE
  stage0 sign --key FILE --version A.B.C [--minimum A.B.C] [--serial N] DIR

To run, settings are read from the environment (BURROW_COORDINATOR, ...), the file (`coordinator = ...`, ...) and
the machine's cloud (META_BURROW_COORDINATOR in the environment; `burrow-coordinator`, ... in GCE's metadata;
`burrow_coordinator`, ... in EC2's user data), in this order:
  coordinator      HOST:PORT of the farm
  enroll           dial in with a key of the machine's own, made known by this token of `burrow enroll new`, or by @FILE
  identity         where that key is kept [~/.burrow/identity]
  host-type        dial in as a machine of this host type, with a shared key; without these, say what to do behind `--`
  hostname         what this machine is called
  public-keys      whose signatures are believed, as `stage0 new-key` prints them
  manifest         where the signed manifest is [https://COORDINATOR/buildlet/manifest]
  fingerprint      SHA-256 of the farm's certificate, where no authority vouches for it
  ca-file          authorities that vouch for it
  state-dir        where buildlets are kept [/var/lib/burrow/stage0]
  network-wait-s   how long to wait for the network before the last good buildlet is run [30]

`new-key` makes a key to sign with and prints its public half. `sign` writes DIR/manifest for the files
`buildlet.SYSTEM-PROCESSOR` of DIR, such as buildlet.linux-amd64; a web server then has to serve DIR.

Exit codes: 0 after the coordinator's /halt, 2 wrong flags, 78 wrong settings, 1 all else.
";

enum Failure {
    Usage(String),
    Settings(Vec<String>),
    Other(String),
}

impl From<lexopt::Error> for Failure {
    fn from(why: lexopt::Error) -> Failure {
        Failure::Usage(why.to_string())
    }
}

/// The whole program. `args` without its own name.
pub fn main_with(args: Vec<OsString>) -> ExitCode {
    let (code, problems) = match command(args) {
        Ok(code) => return ExitCode::from(code),
        Err(Failure::Usage(why)) => (2, vec![format!("{why}; see `stage0 --help`")]),
        Err(Failure::Settings(problems)) => (BAD_SETTINGS, problems),
        Err(Failure::Other(why)) => (1, vec![why]),
    };
    for problem in problems {
        eprintln!("stage0: {problem}");
    }
    ExitCode::from(code)
}

fn command(args: Vec<OsString>) -> Result<u8, Failure> {
    let (ours, theirs) = match args.iter().position(|arg| arg == "--") {
        Some(at) => (args[..at].to_vec(), args[at + 1..].to_vec()),
        None => (args, Vec::new()),
    };
    let mut parser = lexopt::Parser::from_args(ours);
    let (mut config, mut archive, mut dir) = (None, None, None);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") => {
                print!("{HELP}");
                return Ok(0);
            }
            Long("version") => {
                println!("stage0 {}", env!("CARGO_PKG_VERSION"));
                return Ok(0);
            }
            Long("config") => config = Some(PathBuf::from(parser.value()?)),
            Long("untar-file") => archive = Some(PathBuf::from(parser.value()?)),
            Long("untar-dest-dir") => dir = Some(PathBuf::from(parser.value()?)),
            Value(word) if word == "sign" => return sign(parser),
            Value(word) if word == "new-key" => return new_key(parser),
            arg => return Err(arg.unexpected().into()),
        }
    }
    match (archive, dir) {
        (None, None) => run(config, theirs),
        (Some(archive), Some(dir)) => untar(&archive, &dir),
        _ => Err(Failure::Usage(
            "--untar-file and --untar-dest-dir go together".to_owned(),
        )),
    }
}

fn run(config: Option<PathBuf>, args: Vec<OsString>) -> Result<u8, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    let spell = |name: &str| settings::in_environment("BURROW_", name);
    let mut sources = vec![Source::of_names("environment", spell, env)];
    let default = PathBuf::from(DEFAULT_FILE);
    if let Some(path) = config.or_else(|| default.exists().then_some(default)) {
        let text = fs::read_to_string(&path)
            .map_err(|why| Failure::Settings(vec![format!("cannot read `{}`: {why}", path.display())]))?;
        let source = Source::of_file(path.display().to_string(), &text).map_err(Failure::Settings)?;
        sources.push(source);
    }
    sources.push(metadata::kubernetes(env));
    if !settings::is_enough(&sources) {
        let address = env("GCE_METADATA_HOST").unwrap_or_else(|| METADATA_ADDRESS.to_owned());
        sources.extend(metadata::of_clouds(&address));
    }
    let settings = settings::check(&sources).map_err(Failure::Settings)?;
    let folder = Folder::open(&settings.state_dir).map_err(|why| {
        let path = settings.state_dir.display();
        Failure::Other(format!("cannot use the state folder `{path}`: {why}"))
    })?;
    Ok(drive::drive(settings, &folder, args))
}

/// Unpacks a tar.gz of the image's maker, with nothing written outside of `dir`.
fn untar(archive: &Path, dir: &Path) -> Result<u8, Failure> {
    let failed = |why: String| Failure::Other(format!("cannot unpack `{}`: {why}", archive.display()));
    let file = File::open(archive).map_err(|why| failed(why.to_string()))?;
    let root = std::fs::create_dir_all(dir).and_then(|()| buildlet::beneath::Root::open(dir));
    let root = root.map_err(|why| failed(why.to_string()))?;
    buildlet::files::unpack(&root, Path::new("."), file).map_err(|why| failed(why.1))?;
    Ok(0)
}

fn new_key(mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let path = PathBuf::from(parser.value()?);
    println!("{}", publish::new_key(&path).map_err(Failure::Other)?);
    Ok(0)
}

fn sign(mut parser: lexopt::Parser) -> Result<u8, Failure> {
    let (mut key, mut version, mut minimum, mut serial, mut dir) = (None, None, None, None, None);
    let parse_version = |text: OsString| {
        let text = text.string()?;
        Version::parse(&text).ok_or(Failure::Usage(format!("`{text}` is no version; wanted A.B.C")))
    };
    while let Some(arg) = parser.next()? {
        match arg {
            Long("key") => key = Some(PathBuf::from(parser.value()?)),
            Long("version") => version = Some(parse_version(parser.value()?)?),
            Long("minimum") => minimum = Some(parse_version(parser.value()?)?),
            Long("serial") => serial = Some(parser.value()?.parse()?),
            Value(path) => dir = Some(PathBuf::from(path)),
            arg => return Err(arg.unexpected().into()),
        }
    }
    let (Some(key), Some(version), Some(dir)) = (key, version, dir) else {
        return Err(Failure::Usage("`sign` needs --key, --version and DIR".to_owned()));
    };
    let minimum = minimum.unwrap_or(version);
    if minimum > version {
        return Err(Failure::Usage(format!(
            "the minimum {minimum} is above the version {version}"
        )));
    }
    let kinds = publish::sign(&key, version, minimum, serial, &dir).map_err(Failure::Other)?;
    let path = dir.join(publish::MANIFEST);
    println!("signed {} for {kinds} kinds of machine", path.display());
    Ok(0)
}
