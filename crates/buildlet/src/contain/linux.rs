//! Linux: groups of processes, namespaces, Landlock, another user.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread as own;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::cgroup::{Group, Groups};
use super::{Abilities, Ability, Account, Bounds, Limits, Metadata, UNCAGED, User, check, filter, resolve};
use crate::command::Refusal;

/// What every program may write to, though it is no file of the working directory.
const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

/// Of root's rights those that a confined command keeps: what concerns files, which Landlock judges as well, and
/// its own processes. The others lead around Landlock.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// What this machine can do, and what all its commands are kept within.
pub struct Containment {
    abilities: Abilities,
    bounds: Bounds,
    workdir: PathBuf,
    groups: Groups,
    /// Every command is in a group, for the address of the metadata is taken away there.
    always: bool,
}

/// A command that is about to start, or runs: what it is kept within.
pub struct Cage {
    pub limits: Limits,
    group: Group,
}

impl Containment {
    /// Finds out what can be done here; refuses what the bounds ask for and cannot be. Commands may write below
    /// `workdir`, which with a user of their own becomes theirs.
    pub fn open(mut bounds: Bounds, workdir: &Path, instance: &str) -> Result<Arc<Containment>, String> {
        // Whoever runs this program needs no right to be itself.
        bounds.user = bounds
            .user
            .filter(|user| user.uid != rustix::process::geteuid().as_raw());
        let groups = Groups::open(instance);
        let metadata = match (&bounds.metadata, groups.v2()) {
            (Metadata::Open, _) => Err("it was not asked for".to_owned()),
            (Metadata::Auto, _) if !is_in_a_cloud() => Err("this is no machine of a cloud".to_owned()),
            (_, None) => Err(groups.tree.clone().err().unwrap_or_default()),
            (_, Some(group)) => match filter::attach(group) {
                Ok(()) => Ok("BPF"),
                Err(why) => Err(format!("no program can be put before the network: {why}")),
            },
        };
        let always = metadata.is_ok();
        let abilities = Abilities {
            tree: groups.tree.clone(),
            memory: groups.memory.clone(),
            processes: groups.processes.clone(),
            no_network: rehearse("a network namespace", || Steps {
                network: Some(Network::choose()),
                ..Steps::default()
            }),
            confined: rehearse("Landlock", || Steps {
                ruleset: rules(workdir).ok(),
                drop_rights: rustix::process::geteuid().is_root(),
                ..Steps::default()
            })
            .and_then(|means| rules(workdir).map(|_| means)),
            user: match &bounds.user {
                None if rustix::process::geteuid().is_root() => Ok("setuid"),
                None => Err("only root can".to_owned()),
                Some(user) => rehearse("setuid", || Steps {
                    user: Some(user.clone()),
                    ..Steps::default()
                }),
            },
            metadata,
        };
        let containment = Containment {
            abilities,
            bounds,
            workdir: workdir.to_owned(),
            groups,
            always,
        };
        let checked = check(&containment.abilities, &containment.bounds).and_then(|()| containment.settle());
        match checked {
            Ok(()) => Ok(Arc::new(containment)),
            Err(why) => {
                containment.close();
                Err(why)
            }
        }
    }

    /// Gives the working directory to who runs commands in it.
    fn settle(&self) -> Result<(), String> {
        let Some(user) = &self.bounds.user else {
            return Ok(());
        };
        let dir = &self.workdir;
        let failed = |why: io::Error| format!("`{}` cannot be used by `{}`: {why}", dir.display(), user.name);
        std::os::unix::fs::chown(dir, Some(user.uid), Some(user.gid)).map_err(failed)?;
        let _theirs = as_builder(self).map_err(failed)?;
        let reached = fs::read_dir(dir).map(drop);
        reached.map_err(|why| format!("{}; every folder above it must let others pass", failed(why)))
    }

    /// Makes the working directory if it is gone, as that of who runs commands.
    pub fn make_workdir(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.workdir) {
            Ok(_) => return Ok(()),
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            Err(_) => {}
        }
        fs::create_dir_all(&self.workdir)?;
        match &self.bounds.user {
            None => Ok(()),
            Some(user) => std::os::unix::fs::chown(&self.workdir, Some(user.uid), Some(user.gid)),
        }
    }

    /// What the environment of commands says of their user.
    pub fn env(&self) -> Vec<(String, String)> {
        self.bounds.user.iter().flat_map(User::env).collect()
    }

    pub fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Readies `command` to be started within what is asked for and what the bounds say, or refuses it.
    pub fn cage(&self, asked: &Limits, command: &mut Command) -> Result<Cage, Refusal> {
        let limits = resolve(&self.abilities, &self.bounds, asked)?;
        let failed = |what: &str, why: io::Error| Refusal(500, format!("cannot {what}: {why}"));
        let group = self.groups.make(&limits, self.always);
        let group = group.map_err(|why| failed("make a group for the command", why))?;
        let doors = group
            .doors()
            .map_err(|why| failed("open the command's group", why))?;
        let ruleset = match limits.confined {
            false => None,
            true => Some(rules(&self.workdir).map_err(|why| Refusal(500, why))?),
        };
        let steps = Steps {
            doors,
            network: limits.no_network.then(Network::choose),
            user: self.bounds.user.clone(),
            // With them a command would walk out again, of its network too.
            drop_rights: (ruleset.is_some() || limits.no_network)
                && self.bounds.user.is_none()
                && rustix::process::geteuid().is_root(),
            ruleset,
            rehearsal: false,
        };
        steps.before(command);
        Ok(Cage { limits, group })
    }

    /// Ends all commands and removes their groups; for the end of this program.
    pub fn close(&self) {
        self.groups.close();
    }
}

impl Cage {
    /// Ends all its processes, at once, if it has a group.
    pub fn kill(&self) {
        self.group.kill();
    }

    /// Ends what is left in it; what was counted.
    pub fn close(&self) -> Account {
        self.group.kill();
        self.group.account()
    }
}

/// How a network of its own is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Root,
    /// In a user namespace, with this user and group in it as outside.
    User {
        uid: u32,
        gid: u32,
    },
}

impl Network {
    fn choose() -> Network {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if uid.is_root() {
            return Network::Root;
        }
        Network::User {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
        }
    }
}

/// What a child does to itself between fork and exec, in this order.
#[derive(Default)]
struct Steps {
    /// Of the groups it goes into.
    doors: Vec<File>,
    network: Option<Network>,
    user: Option<User>,
    drop_rights: bool,
    ruleset: Option<OwnedFd>,
    /// It ends with `ECANCELED` once all of it worked.
    rehearsal: bool,
}

impl Steps {
    fn before(self, command: &mut Command) {
        let groups = self.user.as_ref().map(|user| {
            let groups = user.groups.iter().chain([&user.gid]);
            groups.map(|&gid| Gid::from_raw(gid)).collect::<Vec<_>>()
        });
        let maps = match self.network {
            Some(Network::User { uid, gid }) => Some((format!("{uid} {uid} 1"), format!("{gid} {gid} 1"))),
            Some(Network::Root) | None => None,
        };
        let steps = move || {
            step("enter its group", || {
                self.doors.iter().try_for_each(|door| {
                    rustix::io::write(door, b"0")?;
                    Ok(())
                })
            })?;
            match (&self.network, &maps) {
                (None, _) => {}
                (Some(_), None) => step("leave the network", || {
                    // SAFETY: the child has one thread and shares no table of files.
                    unsafe { own::unshare_unsafe(UnshareFlags::NEWNET)? };
                    loopback_up()
                })?,
                (Some(_), Some((uids, gids))) => step("leave the network", || {
                    // SAFETY: as above.
                    unsafe { own::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)? };
                    write_to(c"/proc/self/setgroups", b"deny")?;
                    write_to(c"/proc/self/uid_map", uids.as_bytes())?;
                    write_to(c"/proc/self/gid_map", gids.as_bytes())?;
                    loopback_up()
                })?,
            }
            if self.drop_rights {
                step("give up root's rights", drop_rights)?;
            }
            if let (Some(user), Some(groups)) = (&self.user, &groups) {
                let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
                step("become its user", || {
                    own::set_thread_groups(groups)?;
                    own::set_thread_res_gid(gid, gid, gid)?;
                    Ok(own::set_thread_res_uid(uid, uid, uid)?)
                })?;
            }
            if let Some(ruleset) = &self.ruleset {
                step("be confined", || {
                    own::set_no_new_privs(true)?;
                    // SAFETY: it takes two numbers and touches no memory of ours.
                    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) } {
                        0 => Ok(()),
                        _ => Err(io::Error::last_os_error()),
                    }
                })?;
            }
            if self.rehearsal {
                return Err(Errno::CANCELED.into());
            }
            Ok(())
        };
        // SAFETY: between fork and exec only what is safe in a signal handler may be done. These are system calls
        // on what was made before; nothing is allocated, locked or freed.
        unsafe { command.pre_exec(steps) };
    }
}

/// One step; what fails is named in the command's output, for only a number gets from the child to its parent.
fn step(what: &str, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let Err(why) = act() else { return Ok(()) };
    // A number in decimal, without what allocates.
    let mut digits = [b'0'; 3];
    let mut number = why.raw_os_error().unwrap_or(0);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    // SAFETY: the child's own, and open: its output.
    let output = unsafe { std::os::fd::BorrowedFd::borrow_raw(2) };
    for part in [
        "burrow: the command cannot ".as_bytes(),
        what.as_bytes(),
        b" (os error ",
        &digits,
        b")\n",
    ] {
        // The parent says that it failed, whether this is heard or not.
        let _ = rustix::io::write(output, part);
    }
    Err(UNCAGED.into())
}

fn write_to(path: &std::ffi::CStr, bytes: &[u8]) -> io::Result<()> {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    rustix::io::write(&file, bytes)?;
    Ok(())
}

/// Programs talk to themselves; a new network has even its loopback down.
fn loopback_up() -> io::Result<()> {
    // SAFETY: plain system calls; `ifreq` is theirs, filled in, and lives through both.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let done = libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw mut request);
        let why = io::Error::last_os_error();
        libc::close(socket);
        if done < 0 { Err(why) } else { Ok(()) }
    }
}

/// Gives up root's rights but [`KEPT`], for good.
fn drop_rights() -> io::Result<()> {
    for bit in 0..64 {
        let right = CapabilitySet::from_bits_retain(1 << bit);
        if KEPT.contains(right) {
            continue;
        }
        match own::remove_capability_from_bounding_set(right) {
            // The kernel has no more.
            Err(Errno::INVAL) => break,
            done => done?,
        }
    }
    let sets = CapabilitySets {
        effective: KEPT,
        permitted: KEPT,
        inheritable: CapabilitySet::empty(),
    };
    Ok(own::set_capabilities(None, sets)?)
}

/// Reading everywhere as the user may; writing, making and removing below `workdir` alone. It knows nothing of
/// changing modes, owners and times, which the user's own rights must forbid.
fn rules(workdir: &Path) -> Result<OwnedFd, String> {
    let failed = |why: &dyn std::fmt::Display| {
        format!("Landlock: {why}; wanted Linux 6.2 with `landlock` in its `lsm`")
    };
    // Below the third version files anywhere could be cut short.
    let needed = AccessFs::from_all(ABI::V3);
    let made = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(needed)
        .map_err(|why| failed(&why))?
        .set_compatibility(CompatLevel::BestEffort)
        // Nobody outside gets its signals, nor is talked to by a name that no folder holds.
        .scope(Scope::Signal | Scope::AbstractUnixSocket)
        .and_then(Ruleset::create)
        .map_err(|why| failed(&why))?;
    let open = |path: &Path| PathFd::new(path).map_err(|why| failed(&why));
    let (all, own) = (open(Path::new("/"))?, open(workdir)?);
    let mut made = made
        .add_rule(PathBeneath::new(all, AccessFs::from_read(ABI::V3)))
        .and_then(|made| made.add_rule(PathBeneath::new(own, needed)))
        .map_err(|why| failed(&why))?;
    for device in DEVICES {
        // What is not there is not written to.
        if let Ok(device) = PathFd::new(device) {
            let writing = AccessFs::WriteFile | AccessFs::ReadFile;
            made = made
                .add_rule(PathBeneath::new(device, writing))
                .map_err(|why| failed(&why))?;
        }
    }
    let fd: Option<OwnedFd> = made.into();
    fd.ok_or_else(|| failed(&"this kernel has none"))
}

/// Does the steps in a child that then ends: whether they work here.
fn rehearse(means: &'static str, steps: impl FnOnce() -> Steps) -> Ability {
    let mut command = Command::new("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut steps = steps();
    steps.rehearsal = true;
    steps.before(&mut command);
    match command.spawn() {
        Err(why) if Errno::from_io_error(&why) == Some(Errno::CANCELED) => Ok(means),
        Err(why) => Err(format!("{means}: {why}")),
        // A folder was run.
        Ok(_) => Err(format!("{means}: nothing came of it")),
    }
}

/// Whether its maker says that this machine is one of a cloud with an address for metadata.
fn is_in_a_cloud() -> bool {
    let told = ["sys_vendor", "product_name", "board_vendor"]
        .map(|file| fs::read_to_string(format!("/sys/class/dmi/id/{file}")).unwrap_or_default());
    let clouds = [
        "Google",
        "Amazon EC2",
        "Microsoft Corporation",
        "OpenStack",
        "DigitalOcean",
    ];
    told.iter()
        .any(|told| clouds.iter().any(|cloud| told.contains(cloud)))
}

/// This thread touches files as the user of commands, until this goes.
pub struct AsBuilder {
    groups: Vec<Gid>,
}

/// What is made for commands is theirs, and what they may not touch is not touched for them: the thread has their
/// rights and no others. Threads started meanwhile have them, too, for good. `None`: there is no such user.
pub fn as_builder(containment: &Containment) -> io::Result<Option<AsBuilder>> {
    let Some(user) = &containment.bounds.user else {
        return Ok(None);
    };
    let guard = AsBuilder {
        groups: rustix::process::getgroups()?,
    };
    let groups: Vec<Gid> = user.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    // These calls change the calling thread alone.
    own::set_thread_groups(&groups)?;
    own::set_thread_res_gid(None::<Gid>, Gid::from_raw(user.gid), None::<Gid>)?;
    own::set_thread_res_uid(None::<Uid>, Uid::from_raw(user.uid), None::<Uid>)?;
    Ok(Some(guard))
}

impl Drop for AsBuilder {
    fn drop(&mut self) {
        let back = own::set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>)
            .and_then(|()| own::set_thread_res_gid(None::<Gid>, Gid::ROOT, None::<Gid>))
            .and_then(|()| own::set_thread_groups(&self.groups));
        // A thread with half of another's rights must not go on.
        back.expect("whoever was root may be again");
    }
}
