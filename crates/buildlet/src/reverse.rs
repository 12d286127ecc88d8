//! Dials the coordinator, registers, and brings it the connections it asks for; for ever.
//!
//! When the connection is lost it registers anew as the same machine: commands of `/burrow/exec` go on
//! meanwhile.
//!
//! Source: golang/build `cmd/buildlet/reverse.go`, `revdial/v2/revdial.go`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use revdial::proof;
use revdial::v2::{Listener, ListenerEvent, keep_alive_line, pickup_failed_line};

use crate::control::{Control, SILENCE_LIMIT};
use crate::dial::{Coordinator, UpgradeError, upgrade, upgrade_proving};
use crate::identity::OwnKey;
use crate::multiplexed;
use crate::server::{PROTOCOL, Server};
use crate::stream::{Buffered, Stream};

/// From a request for a connection to its 101; also for a registration.
const PICKUP_LIMIT: Duration = Duration::from_secs(30);
/// Connections on their way at once.
const PICKUPS_MAX: usize = 64;
/// Between two words of ours: the coordinator was told that it can count on them.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
pub const CLOSED: &str = "the coordinator closed the connection";
/// The longest pause between two registrations.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Who this machine says it is.
pub struct Identity {
    pub host_type: String,
    pub hostname: String,
    pub credential: Credential,
}

/// How this machine proves what it says.
pub enum Credential {
    /// A key of its host type. Never printed.
    Key(String),
    /// A key of its own, whose private half stays here.
    Own(OwnKey),
}

/// The coordinator does not want this machine: trying again would change nothing.
#[derive(Debug)]
pub struct Refused(pub String);

/// How often in a row this machine was refused, over restarts, in a file of the state folder.
pub struct Refusals(pub PathBuf);

impl Refusals {
    /// Notes one more; says how long to wait for it.
    pub fn one_more(&self) -> Duration {
        let before = std::fs::read_to_string(&self.0)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let before: u32 = before.unwrap_or(0);
        // A count that cannot be kept begins anew.
        let _ = std::fs::write(&self.0, before.saturating_add(1).to_string());
        pause(before, random())
    }

    fn none(&self) {
        // As a rule it is not there.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Registers again and again; returns when it is refused.
pub fn run(
    server: &Arc<Server>,
    coordinator: &Arc<Coordinator>,
    identity: &Identity,
    refusals: &Refusals,
) -> Refused {
    let mut failures = 0;
    loop {
        let lost = match register(coordinator, identity, server.instance()) {
            Ok(control) => {
                let (host, host_type) = (&coordinator.host, &identity.host_type);
                eprintln!(
                    "buildlet: registered with {host} as {} ({host_type})",
                    identity.hostname
                );
                failures = 0;
                refusals.none();
                let control = Arc::new(control);
                let why = listen(&control, server, coordinator);
                // Its pick-ups may hold it a while: the coordinator shall not.
                control.close();
                why
            }
            Err(UpgradeError::Refused { status, text }) if is_final(status) => {
                return Refused(format!("the coordinator refused this machine ({status}): {text}"));
            }
            Err(why) if why.is_stranger() => return Refused(why.to_string()),
            Err(why) => why.to_string(),
        };
        if server.is_ending() {
            // Whoever ends it ends the process, too.
            loop {
                std::thread::park();
            }
        }
        let pause = pause(failures, random());
        failures += 1;
        eprintln!(
            "buildlet: not connected to {}: {lost}; trying again in {:.1} s",
            coordinator.host,
            pause.as_secs_f32()
        );
        std::thread::sleep(pause);
    }
}

/// Whether an answer to a registration will be the same next time.
pub(crate) fn is_final(status: u16) -> bool {
    matches!(status, 400..500) && !matches!(status, 408 | 425 | 429)
}

/// Before the next try after so many that failed: 1 s, doubled up to a minute, of which `random` takes
/// up to half away, so that machines do not come back all at once.
pub(crate) fn pause(failures: u32, random: u8) -> Duration {
    let whole = PAUSE_MAX.min(Duration::from_secs(1 << failures.min(6)));
    whole - whole.mul_f32(f32::from(random) / 510.0)
}

pub(crate) fn random() -> u8 {
    let mut byte = [0];
    // Without randomness machines come back together, which is no harm to this one.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
    byte[0]
}

fn register(coordinator: &Coordinator, identity: &Identity, instance: &str) -> Result<Control, UpgradeError> {
    let deadline = Instant::now() + PICKUP_LIMIT;
    let Identity {
        host_type,
        hostname,
        credential,
    } = identity;
    let shown = match credential {
        Credential::Key(key) => format!("X-Go-Builder-Key: {key}"),
        Credential::Own(own) => format!("{}: {}", proof::IDENTITY, own.public()),
    };
    let release = std::env::var("BURROW_RELEASE").unwrap_or_default();
    let release = match release.bytes().all(|b| b.is_ascii_digit()) && !release.is_empty() {
        true => format!("X-Burrow-Release: {release}\r\n"),
        false => String::new(),
    };
    let headers = format!(
        "X-Go-Builder-Hostname: {hostname}\r\n{shown}\r\nX-Go-Builder-Version: {PROTOCOL}\r\n\
         X-Go-Host-Type: {host_type}\r\nX-Revdial-Version: 2\r\nX-Burrow-Instance: {instance}\r\n\
         X-Burrow-Keep-Alive: 1\r\n{release}"
    );
    let prove = |challenge: &str| match credential {
        Credential::Key(_) => String::new(),
        Credential::Own(own) => own.sign(&proof::registration(challenge, own.public(), hostname, instance)),
    };
    let tls = coordinator.dial(deadline)?;
    let opened = upgrade_proving(
        Buffered::new(Stream::Dialled(Box::new(tls))),
        "/reverse",
        &headers,
        matches!(credential, Credential::Own(_)).then_some(&prove as &dyn Fn(&str) -> String),
        deadline,
    )?;
    Ok(Control::new(opened)?)
}

/// Does what the coordinator asks for until the connection ends; returns why it ended. The coordinator
/// speaks first, and its first byte tells which version of the protocol it speaks.
fn listen(control: &Arc<Control>, server: &Arc<Server>, coordinator: &Arc<Coordinator>) -> String {
    let first = match control.receive(Instant::now() + SILENCE_LIMIT) {
        Ok(bytes) => bytes,
        Err(why) => return why.to_string(),
    };
    match first.first() {
        None => CLOSED.to_owned(),
        Some(b'N') => multiplexed::listen(control, server, &first),
        Some(_) => listen_v2(control, server, coordinator, first),
    }
}

fn listen_v2(
    control: &Arc<Control>,
    server: &Arc<Server>,
    coordinator: &Arc<Coordinator>,
    mut bytes: Vec<u8>,
) -> String {
    let mut listener = Listener::new();
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut deadline = Instant::now() + SILENCE_LIMIT;
    let mut keep_alive_at = Instant::now() + KEEP_ALIVE;
    loop {
        let events = match listener.receive(&bytes) {
            Ok(events) => events,
            Err(why) => return format!("the coordinator broke the protocol: {why}"),
        };
        if bytes.contains(&b'\n') {
            deadline = Instant::now() + SILENCE_LIMIT;
        }
        for event in events {
            match event {
                ListenerEvent::KeepAlive => {}
                ListenerEvent::Dial { path } => {
                    let (control, server, coordinator) =
                        (control.clone(), server.clone(), coordinator.clone());
                    let under_way = under_way.clone();
                    if under_way.fetch_add(1, Ordering::SeqCst) >= PICKUPS_MAX {
                        under_way.fetch_sub(1, Ordering::SeqCst);
                        let why = format!("{PICKUPS_MAX} connections are on their way already");
                        if let Err(why) = control.send(&pickup_failed_line(&path, &why)) {
                            return why.to_string();
                        }
                        continue;
                    }
                    std::thread::spawn(move || {
                        let picked_up = pick_up(&coordinator, &path);
                        under_way.fetch_sub(1, Ordering::SeqCst);
                        match picked_up {
                            Ok(stream) => {
                                drop(control);
                                server.serve(stream);
                            }
                            // The control connection may have ended meanwhile, which its reader tells.
                            Err(why) => drop(control.send(&pickup_failed_line(&path, &why.to_string()))),
                        }
                    });
                }
            }
        }
        if keep_alive_at <= Instant::now() {
            if let Err(why) = control.send(&keep_alive_line()) {
                return why.to_string();
            }
            keep_alive_at = Instant::now() + KEEP_ALIVE;
        }
        bytes = match control.receive(deadline.min(keep_alive_at)) {
            Err(why) if why.kind() == std::io::ErrorKind::TimedOut && Instant::now() < deadline => Vec::new(),
            Ok(bytes) if bytes.is_empty() => return CLOSED.to_owned(),
            Ok(bytes) => bytes,
            Err(why) => return why.to_string(),
        };
    }
}

fn pick_up(coordinator: &Coordinator, path: &str) -> Result<Buffered, UpgradeError> {
    let deadline = Instant::now() + PICKUP_LIMIT;
    let tls = coordinator.dial(deadline)?;
    upgrade(Buffered::new(Stream::Dialled(Box::new(tls))), path, "", deadline)
}

/// The public key of the original's development mode. Source: golang/build `cmd/coordinator/dash.go`.
pub fn development_key(host_type: &str) -> String {
    let mut mac = Hmac::<md5::Md5>::new_from_slice(b"gophers rule").expect("HMAC takes keys of every length");
    mac.update(host_type.as_bytes());
    let digest = mac.finalize().into_bytes();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key for a host type: the file that `$GO_BUILD_KEY_PATH` names, else `~/.gobuildkey-TYPE`;
/// removed after reading where `$GO_BUILD_KEY_DELETE_AFTER_READ` says so.
pub fn read_key(host_type: &str, env: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let path = env("GO_BUILD_KEY_PATH").map_or_else(
        || PathBuf::from(env("HOME").unwrap_or("/root".to_owned())).join(format!(".gobuildkey-{host_type}")),
        PathBuf::from,
    );
    let shown = path.display();
    let text = std::fs::read_to_string(&path).map_err(|why| {
        format!("cannot read the key `{shown}`: {why}; name another file by GO_BUILD_KEY_PATH")
    })?;
    let key = text.trim();
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "the key `{shown}` is no key; wanted one line of text without spaces"
        ));
    }
    if crate::form::is_true(env("GO_BUILD_KEY_DELETE_AFTER_READ").as_deref()) {
        std::fs::remove_file(&path).map_err(|why| format!("cannot remove the key `{shown}`: {why}"))?;
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_less_some_chance() {
        let whole: Vec<u64> = (0..9).map(|n| pause(n, 0).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(9, 255), Duration::from_secs(30));
    }

    #[test]
    fn only_the_coordinators_no_is_final() {
        let finals: Vec<u16> = [400, 408, 412, 429, 500, 503, 307]
            .into_iter()
            .filter(|status| is_final(*status))
            .collect();
        assert_eq!(finals, [400, 412]);
    }

    #[test]
    fn development_keys_are_those_of_the_original() {
        assert_eq!(development_key("host-test"), "23b7aaf3a8eda20c9e3182c17b2ce9ed");
    }

    #[test]
    fn a_key_is_trimmed_and_removed_if_asked() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join(".gobuildkey-host-x");
        let read = |delete: &str| {
            read_key("host-x", |name| match name {
                "HOME" => Some(home.path().display().to_string()),
                "GO_BUILD_KEY_DELETE_AFTER_READ" => Some(delete.to_owned()),
                _ => None,
            })
        };
        assert!(read("").expect_err("no file").contains(".gobuildkey-host-x"));
        for bad in [" \n", "a b", "a\r\nX: y"] {
            std::fs::write(&path, bad).expect("written");
            assert!(read("").is_err(), "{bad:?}");
        }
        std::fs::write(&path, "4f2a\n").expect("written");
        assert_eq!(read("0").as_deref(), Ok("4f2a"));
        assert_eq!(read("true").as_deref(), Ok("4f2a"));
        assert!(!path.exists());
    }
}
