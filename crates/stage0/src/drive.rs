//! Does what the core says: the only place where it meets the network, the clock and the process.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::child;
use crate::fetch::{FetchError, Fetcher};
use crate::kept::Folder;
use crate::manifest::{self, MAX_MANIFEST, Release, Target};
use crate::settings::Settings;
use crate::stage::{Action, Event, PROVEN_AFTER, Stage};

/// For a few MB over the slowest line there may be.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1800);

const MANIFEST_LIMIT: Duration = Duration::from_secs(30);

/// Until the buildlet is halted: with the code to end with.
pub fn drive(settings: Settings, folder: &Folder, mut args: Vec<OsString>) -> u8 {
    let target = Target::ours();
    let mut all_args: Vec<OsString> = settings.buildlet_args.iter().map(OsString::from).collect();
    all_args.append(&mut args);
    let mut shell = Shell {
        fetcher: Fetcher {
            trust: settings.trust,
            agent: format!("burrow-stage0/{} ({target})", env!("CARGO_PKG_VERSION")),
        },
        stage: Stage::new(folder.kept(&settings.public_keys, &target), settings.network_wait),
        manifest: Vec::new(),
        began: Instant::now(),
        url: settings.manifest,
        keys: settings.public_keys,
        args: all_args,
        folder,
        target,
    };
    let mut event = Event::Began;
    loop {
        match shell.step(event) {
            Next::Event(next) => event = next,
            Next::Exit(code) => return code,
        }
    }
}

struct Shell<'a> {
    fetcher: Fetcher,
    url: crate::fetch::Url,
    keys: Vec<manifest::PublicKey>,
    target: Target,
    folder: &'a Folder,
    args: Vec<OsString>,
    stage: Stage,
    began: Instant,
    /// The bytes of the manifest that came last.
    manifest: Vec<u8>,
}

enum Next {
    Event(Event),
    Exit(u8),
}

impl Shell<'_> {
    fn step(&mut self, event: Event) -> Next {
        let actions = self.stage.handle(self.began.elapsed(), event);
        for action in actions {
            match action {
                Action::Tell(_) | Action::KeepAsGood(_) => self.note(action),
                Action::Ask => return Next::Event(self.ask()),
                Action::Take(release) => {
                    return Next::Event(match self.take(&release) {
                        Ok(()) => Event::Taken,
                        Err(why) => Event::NotTaken(why),
                    });
                }
                Action::Run(release) => return Next::Event(self.run(&release)),
                Action::Wait(longest) => {
                    std::thread::sleep(longest.mul_f64(0.5 + 0.5 * random_part()));
                    return Next::Event(Event::Waited);
                }
                Action::Exit(code) => return Next::Exit(code),
            }
        }
        unreachable!("the last action brings an event or ends it all")
    }

    /// Does what brings no event.
    fn note(&self, action: Action) {
        match action {
            Action::Tell(text) => tell(&text),
            Action::KeepAsGood(release) => {
                if let Err(why) = self.folder.keep_as_good(&release.binary) {
                    tell(&format!(
                        "cannot keep buildlet {} as the good one: {why}",
                        release.version
                    ));
                }
            }
            _ => unreachable!("it brings an event"),
        }
    }

    fn ask(&mut self) -> Event {
        let mut bytes = Vec::new();
        let deadline = Instant::now() + MANIFEST_LIMIT;
        match self
            .fetcher
            .get(&self.url, "", MAX_MANIFEST, deadline, &mut bytes)
        {
            Err(why @ FetchError::Unanswered { .. }) => return Event::Unanswered(why.to_string()),
            Err(why) => return Event::Unusable(why.to_string()),
            Ok(_) => {}
        }
        match manifest::open(&bytes, &self.keys, &self.target) {
            Ok(offer) => {
                self.manifest = bytes;
                Event::Offered(offer)
            }
            Err(why) => Event::Unusable(format!("{}: {why}", self.url)),
        }
    }

    fn take(&self, release: &Release) -> Result<(), String> {
        let binary = &release.binary;
        let keep = |why: std::io::Error| format!("cannot use the state folder: {why}");
        self.folder.keep_newest(&self.manifest).map_err(keep)?;
        if !self.folder.has(binary) {
            self.fetch(release)?;
        }
        self.folder.keep_latest(&self.manifest).map_err(keep)
    }

    fn fetch(&self, release: &Release) -> Result<(), String> {
        let binary = &release.binary;
        let url = self.url.beside(&binary.name);
        tell(&format!("fetching buildlet {} from {url}", release.version));
        let mut part = self
            .folder
            .part()
            .map_err(|why| format!("cannot use the state folder: {why}"))?;
        let deadline = Instant::now() + DOWNLOAD_LIMIT;
        let got = self.fetcher.get(&url, "", binary.size, deadline, &mut part);
        got.map_err(|why| why.to_string())?;
        part.finish(binary)
    }

    fn run(&mut self, release: &Release) -> Event {
        tell(&format!("running buildlet {}", release.version));
        let program = self.folder.program(&release.binary);
        let args = self.args.clone();
        let end = child::run(&program, &args, release.serial, PROVEN_AFTER, || {
            for action in self.stage.handle(self.began.elapsed(), Event::Proven) {
                self.note(action);
            }
        });
        Event::Ended(end)
    }
}

fn tell(text: &str) {
    eprintln!("stage0: {text}");
}

/// From 0 to 1.
fn random_part() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness all wait the same time, which is no worse than not to run at all.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
