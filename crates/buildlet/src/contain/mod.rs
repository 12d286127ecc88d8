//! What a command is kept within: its processes, memory, output and time, the network, the files it may write,
//! and the user it runs as.
//!
//! Each of these is asked for, by whoever sends the command or by the flags of this program, and what is asked for
//! is done or refused: [`Containment::cage`] never starts a command with less than that. What this machine can do
//! is found out once, at the start, by doing it ([`Abilities`]), and said in `/status`.
//!
//! This file decides and is pure; one file per system acts.

use std::time::Duration;

use crate::command::Refusal;
use crate::form;

#[cfg(target_os = "linux")]
mod cgroup; // groups of processes
#[cfg(target_os = "linux")]
mod filter; // the address of the cloud's metadata
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other; // systems without any of it
mod user; // whom commands run as

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use other as system;

pub use system::{AsBuilder, Cage, Containment, as_builder};
pub use user::User;

/// What one command is to be kept within. Nothing of it: it runs as before there were limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// All its processes end with it, at once, whatever they do.
    pub tree: bool,
    /// Bytes, of all its processes together.
    pub memory: Option<u64>,
    /// Processes and threads at once.
    pub processes: Option<u64>,
    /// Bytes of output; it is killed when it prints more.
    pub output: Option<u64>,
    /// It is killed when it runs for longer.
    pub wall: Option<Duration>,
    /// It has a network of its own with nothing on it but itself.
    pub no_network: bool,
    /// It writes below the working directory and nowhere else.
    pub confined: bool,
}

/// What the flags say of all commands: bounds of what is asked for, and who runs them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    pub limits: Limits,
    pub user: Option<User>,
    pub metadata: Metadata,
}

/// Whether commands reach the address where a cloud tells its machines their secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Metadata {
    /// Not in a cloud that has one, if this machine can see to that.
    #[default]
    Auto,
    Blocked,
    Open,
}

/// The means by which something is done here, or why it cannot be.
pub type Ability = Result<&'static str, String>;

/// What this machine can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    pub tree: Ability,
    pub memory: Ability,
    pub processes: Ability,
    pub no_network: Ability,
    pub confined: Ability,
    pub user: Ability,
    pub metadata: Ability,
}

impl Limits {
    /// Reads them from the fields of a form. The error names the field, what was found, and what is right.
    pub fn parse(pairs: &[(String, String)]) -> Result<Limits, String> {
        let number = |key: &str, unit: &str| match form::get(pairs, key) {
            None | Some("") => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(format!(
                    "invalid '{key}' parameter: `{text}`; wanted a number of {unit}, 1 or more"
                )),
            },
        };
        let word = |key: &str, word: &str| match form::get(pairs, key) {
            None | Some("") => Ok(false),
            Some(text) if text == word => Ok(true),
            Some(text) => Err(format!(
                "invalid '{key}' parameter: `{text}`; wanted `{word}` or nothing"
            )),
        };
        Ok(Limits {
            tree: word("tree", "whole")?,
            memory: number("memory_bytes", "bytes")?,
            processes: number("processes", "processes")?,
            output: number("output_bytes", "bytes")?,
            wall: number("wall_s", "seconds")?.map(Duration::from_secs),
            no_network: word("network", "off")?,
            confined: word("write", "workdir")?,
        })
    }

    /// Both: of each the stricter.
    pub fn and(self, other: Limits) -> Limits {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.into_iter().chain(other).min()
        }
        Limits {
            tree: self.tree || other.tree,
            memory: least(self.memory, other.memory),
            processes: least(self.processes, other.processes),
            output: least(self.output, other.output),
            wall: least(self.wall, other.wall),
            no_network: self.no_network || other.no_network,
            confined: self.confined || other.confined,
        }
    }
}

impl Abilities {
    /// The first of what is asked for that this machine cannot do, and why.
    pub fn refuse(&self, limits: &Limits) -> Option<String> {
        let asked = [
            (limits.tree, "end all processes of a command surely", &self.tree),
            (limits.memory.is_some(), "limit memory", &self.memory),
            (limits.processes.is_some(), "limit processes", &self.processes),
            (limits.no_network, "take the network away", &self.no_network),
            (
                limits.confined,
                "keep writing within the working directory",
                &self.confined,
            ),
        ];
        asked
            .into_iter()
            .find_map(|(is_asked, what, ability)| Some((what, ability.as_ref().err()?)).filter(|_| is_asked))
            .map(|(what, why)| format!("this machine cannot {what}: {why}"))
    }

    /// Each by its name in `/status`, in a fixed order.
    pub fn all(&self) -> [(&'static str, &Ability); 7] {
        [
            ("tree", &self.tree),
            ("memory", &self.memory),
            ("processes", &self.processes),
            ("network", &self.no_network),
            ("write", &self.confined),
            ("user", &self.user),
            ("metadata", &self.metadata),
        ]
    }
}

/// The status of an answer that refuses what this machine cannot do: no fault of the command's author.
const CANNOT: u16 = 501;

/// What the bounds and the caller say together, or why that cannot be had here.
fn resolve(abilities: &Abilities, bounds: &Bounds, asked: &Limits) -> Result<Limits, Refusal> {
    let limits = bounds.limits.and(*asked);
    match abilities.refuse(&limits) {
        Some(why) => Err(Refusal(CANNOT, why)),
        None => Ok(limits),
    }
}

/// Whether the flags ask for what this machine cannot do: then it does not start at all.
fn check(abilities: &Abilities, bounds: &Bounds) -> Result<(), String> {
    if let Some(why) = abilities.refuse(&bounds.limits) {
        return Err(why);
    }
    match (&bounds.user, &abilities.user) {
        (Some(user), Err(why)) => {
            return Err(format!(
                "this machine cannot run commands as `{}`: {why}",
                user.name
            ));
        }
        (Some(_), Ok(_)) | (None, _) => {}
    }
    match (bounds.metadata, &abilities.metadata) {
        (Metadata::Blocked, Err(why)) => {
            Err(format!("this machine cannot block the metadata address: {why}"))
        }
        (Metadata::Blocked | Metadata::Auto | Metadata::Open, _) => Ok(()),
    }
}

/// Whether a command was not started because it could not be put into its cage: this machine's fault, and its
/// output says more.
pub fn is_uncaged(why: &std::io::Error) -> bool {
    rustix::io::Errno::from_io_error(why) == Some(UNCAGED)
}

/// No program's start ends with this.
const UNCAGED: rustix::io::Errno = rustix::io::Errno::NOTRECOVERABLE;

/// What became of a command in its cage, besides its own end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Bytes at most at once, if that is counted here.
    pub memory_peak: Option<u64>,
    /// Of all its processes, user and system together.
    pub cpu: Option<Duration>,
    /// Limits it ran into: `it reached its limit of 64 processes`.
    pub reached: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn able() -> Abilities {
        Abilities {
            tree: Ok("t"),
            memory: Ok("m"),
            processes: Ok("p"),
            no_network: Ok("n"),
            confined: Ok("c"),
            user: Ok("u"),
            metadata: Ok("d"),
        }
    }

    fn parse(text: &str) -> Result<Limits, String> {
        Limits::parse(&form::parse(text.as_bytes()))
    }

    #[test]
    fn limits_are_read_and_what_is_wrong_is_named() {
        assert_eq!(parse("cmd=x&wall_s=&network="), Ok(Limits::default()));
        let all = "tree=whole&memory_bytes=5&processes=6&output_bytes=7&wall_s=8&network=off&write=workdir";
        let wanted = Limits {
            tree: true,
            memory: Some(5),
            processes: Some(6),
            output: Some(7),
            wall: Some(Duration::from_secs(8)),
            no_network: true,
            confined: true,
        };
        assert_eq!(parse(all), Ok(wanted));
        for (text, why) in [
            (
                "memory_bytes=5k",
                "invalid 'memory_bytes' parameter: `5k`; wanted a number of bytes, 1 or more",
            ),
            (
                "processes=0",
                "invalid 'processes' parameter: `0`; wanted a number of processes, 1 or more",
            ),
            (
                "wall_s=-1",
                "invalid 'wall_s' parameter: `-1`; wanted a number of seconds, 1 or more",
            ),
            (
                "network=on",
                "invalid 'network' parameter: `on`; wanted `off` or nothing",
            ),
            (
                "write=all",
                "invalid 'write' parameter: `all`; wanted `workdir` or nothing",
            ),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()));
        }
    }

    #[test]
    fn of_two_limits_the_stricter_holds() {
        let one = parse("memory_bytes=5&processes=9&network=off").expect("limits");
        let other = parse("memory_bytes=7&processes=3&output_bytes=1&write=workdir").expect("limits");
        let both = parse("memory_bytes=5&processes=3&output_bytes=1&network=off&write=workdir");
        assert_eq!(Ok(one.and(other)), both);
        assert_eq!(one.and(Limits::default()), one);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_reason_and_all_else_is_not() {
        let cannot = |change: fn(&mut Abilities)| {
            let mut abilities = able();
            change(&mut abilities);
            abilities
        };
        let why = || Err("w".to_owned());
        type Change = fn(&mut Abilities);
        let rows: [(&str, Change, &str); 5] = [
            (
                "tree=whole",
                |a| a.tree = Err("w".into()),
                "end all processes of a command surely",
            ),
            ("memory_bytes=1", |a| a.memory = Err("w".into()), "limit memory"),
            (
                "processes=1",
                |a| a.processes = Err("w".into()),
                "limit processes",
            ),
            (
                "network=off",
                |a| a.no_network = Err("w".into()),
                "take the network away",
            ),
            (
                "write=workdir",
                |a| a.confined = Err("w".into()),
                "keep writing within the working directory",
            ),
        ];
        let unbounded = Bounds::default();
        for (asked, change, what) in rows {
            let asked = parse(asked).expect("limits");
            let text = format!("this machine cannot {what}: w");
            let refused = resolve(&cannot(change), &unbounded, &asked);
            assert_eq!(refused, Err(Refusal(CANNOT, text.clone())));
            assert_eq!(resolve(&able(), &unbounded, &asked), Ok(asked));
            assert_eq!(
                resolve(&cannot(change), &unbounded, &Limits::default()),
                Ok(Limits::default())
            );
            // Of the flags it is refused at the start.
            let bounds = Bounds {
                limits: asked,
                ..Bounds::default()
            };
            assert_eq!(check(&cannot(change), &bounds), Err(text));
            assert_eq!(check(&able(), &bounds), Ok(()));
        }
        let mut abilities = able();
        abilities.metadata = why();
        let blocked = |metadata| Bounds {
            metadata,
            ..Bounds::default()
        };
        assert!(check(&abilities, &blocked(Metadata::Blocked)).is_err());
        assert!(check(&abilities, &blocked(Metadata::Auto)).is_ok());
        // What is limited in the form and not by the machine needs nothing of it.
        let asked = parse("output_bytes=1&wall_s=1").expect("limits");
        let nothing = Abilities {
            tree: why(),
            memory: why(),
            processes: why(),
            no_network: why(),
            confined: why(),
            user: why(),
            metadata: why(),
        };
        assert_eq!(resolve(&nothing, &unbounded, &asked), Ok(asked));
    }
}
