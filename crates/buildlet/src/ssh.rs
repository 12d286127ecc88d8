//! Shells for people: `/connect-ssh` joins its connection to an sshd of its own.
//!
//! OpenSSH's server is run for one connection, on no port, with a configuration made for it: one key, one user, the
//! environment and the folder that a command gets. Nothing of the machine's own sshd is used or changed, and
//! whatever the session started ends with it.
//!
//! Source of the request: golang/build `buildlet/buildletclient.go`, `cmd/buildlet/buildlet.go`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::contain::Containment;
use crate::exec::Execs;
use crate::stream::Buffered;

/// Sessions at once.
const SESSIONS_MAX: usize = 16;
/// How long what sshd says first is held back: a Go client loses what comes with the answer. Source: spec
/// buildlet 2.4.
const HOLD_BACK: Duration = Duration::from_secs(1);
/// For what is written to be taken, by either side.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

const SSHD: [&str; 4] = [
    "/usr/sbin/sshd",
    "/usr/local/sbin/sshd",
    "/usr/bin/sshd",
    "/sbin/sshd",
];
const SFTP: [&str; 5] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/sftp-server",
];

/// Why there is no session: a status of the answer and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct SshRefusal(pub u16, pub String);

/// Who wants to log in, and by which key.
#[derive(Debug, PartialEq, Eq)]
pub struct Guest {
    user: String,
    key: String,
}

impl Guest {
    /// Reads the two headers of the request. What could be more than a key or a name to sshd is refused.
    pub fn parse(user: Option<&str>, key: Option<&str>) -> Result<Guest, String> {
        let user = user.unwrap_or_default().trim();
        let in_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if user.is_empty() || user.len() > 32 || user.starts_with(['-', '.']) || !user.chars().all(in_name) {
            return Err(format!(
                "invalid X-Go-Ssh-User `{}`; wanted 1 to 32 of letters, digits, `.`, `_`, `-`",
                user.escape_default()
            ));
        }
        let wrong =
            || "invalid X-Go-Authorized-Key; wanted one public key, as `ssh-ed25519 AAAA…`".to_owned();
        let mut words = key.unwrap_or_default().split_ascii_whitespace();
        let (kind, key) = (words.next().ok_or_else(wrong)?, words.next().ok_or_else(wrong)?);
        let is_kind = ["ssh-", "ecdsa-sha2-", "sk-"]
            .iter()
            .any(|start| kind.starts_with(start));
        let in_kind = |c: char| c.is_ascii_alphanumeric() || "-@.".contains(c);
        let in_key = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        if !is_kind || !kind.chars().all(in_kind) || !key.chars().all(in_key) || key.len() > 16 * 1024 {
            return Err(wrong());
        }
        // Its comment is for people.
        Ok(Guest {
            user: user.to_owned(),
            key: format!("{kind} {key}"),
        })
    }
}

/// What sessions need, made as it is needed.
pub struct Ssh {
    /// Holds the machine's key and a folder for each session.
    dir: PathBuf,
    running: AtomicUsize,
    names: AtomicUsize,
    /// Made once, at the first session.
    key: Mutex<Option<PathBuf>>,
}

/// Who sshd may let in.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    /// Anybody, for it runs as root.
    Root,
    /// Itself alone.
    Own { name: String },
}

/// One session's configuration, pure.
struct Config<'a> {
    guest: &'a Guest,
    dir: &'a Path,
    host: &'a Host,
    sftp: Option<&'a str>,
    has_pam: bool,
    env: &'a [(String, String)],
    workdir: &'a Path,
}

impl Config<'_> {
    fn text(&self) -> String {
        let dir = self.dir.display();
        let user = &self.guest.user;
        let mut lines = vec![
            format!("HostKey {dir}/host_key"),
            format!("AllowUsers {user}"),
            "AuthenticationMethods publickey".to_owned(),
            "PermitRootLogin prohibit-password".to_owned(),
            "PasswordAuthentication no".to_owned(),
            "KbdInteractiveAuthentication no".to_owned(),
            "AllowTcpForwarding local".to_owned(),
            "PermitOpen localhost:* 127.0.0.1:* [::1]:*".to_owned(),
            "AllowAgentForwarding no".to_owned(),
            "AllowStreamLocalForwarding no".to_owned(),
            "X11Forwarding no".to_owned(),
            "PermitTunnel no".to_owned(),
            "PermitUserEnvironment no".to_owned(),
            "PermitUserRC no".to_owned(),
            "StrictModes no".to_owned(),
            "PrintMotd no".to_owned(),
            "PrintLastLog no".to_owned(),
            "UseDNS no".to_owned(),
            "PidFile none".to_owned(),
            "LogLevel ERROR".to_owned(),
            "LoginGraceTime 60".to_owned(),
        ];
        match self.host {
            // The file would have to be readable for whoever logs in.
            Host::Root => lines.extend([
                "AuthorizedKeysFile none".to_owned(),
                format!("AuthorizedKeysCommand /bin/echo {}", self.guest.key),
                "AuthorizedKeysCommandUser root".to_owned(),
                format!("UsePAM {}", if self.has_pam { "yes" } else { "no" }),
            ]),
            Host::Own { .. } => lines.extend([
                format!("AuthorizedKeysFile {dir}/authorized_keys"),
                "UsePAM no".to_owned(),
            ]),
        }
        if let Some(sftp) = self.sftp {
            lines.push(format!("Subsystem sftp {sftp}"));
        }
        let env = self.env.iter().filter(|(key, value)| {
            let own = [
                "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "TERM", "MAIL", "_",
            ];
            let plain = |c: char| (' '..='~').contains(&c) && !"\"\\".contains(c);
            !own.contains(&key.as_str()) && !key.is_empty() && key.chars().chain(value.chars()).all(plain)
        });
        let mut env: Vec<String> = env.map(|(key, value)| format!("\"{key}={value}\"")).collect();
        // A shell below another reads no file that would change the rest.
        env.push("\"SHLVL=1\"".to_owned());
        lines.push(format!("SetEnv {}", env.join(" ")));
        let workdir = quoted(&self.workdir.display().to_string());
        // What is asked for runs as sshd would have run it, in the folder of commands.
        lines.push(format!(
            "ForceCommand exec /bin/sh -c {}",
            quoted(&format!(
                "cd {workdir} || cd /; test -z \"$SSH_ORIGINAL_COMMAND\" || exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"; \
                 test -x \"$SHELL\" || SHELL=/bin/sh; test -t 0 && exec \"$SHELL\" -i; exec \"$SHELL\""
            ))
        ));
        lines.push(String::new());
        lines.join("\n")
    }
}

/// As one word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Ssh {
    pub fn new(state_dir: &Path) -> Ssh {
        Ssh {
            dir: state_dir.join("ssh"),
            running: AtomicUsize::new(0),
            names: AtomicUsize::new(0),
            key: Mutex::default(),
        }
    }

    /// Whether sessions can be had here.
    pub fn sshd() -> Result<&'static str, String> {
        let found = SSHD.into_iter().find(|path| Path::new(path).is_file());
        found.ok_or_else(|| "there is no sshd on this machine; install OpenSSH's server".to_owned())
    }

    /// Starts sshd for `guest` and joins it to `client`, until either ends. `upgrade` is sent before.
    pub fn serve(
        &self,
        guest: &Guest,
        client: &mut Buffered,
        upgrade: &[u8],
        (execs, containment, workdir): (&Execs, &Containment, &Path),
    ) -> io::Result<Result<(), SshRefusal>> {
        if self.running.fetch_add(1, Ordering::SeqCst) >= SESSIONS_MAX {
            self.running.fetch_sub(1, Ordering::SeqCst);
            let why = format!("{SESSIONS_MAX} sessions are open here already");
            return Ok(Err(SshRefusal(503, why)));
        }
        let served = self.session(guest, client, upgrade, (execs, containment, workdir));
        self.running.fetch_sub(1, Ordering::SeqCst);
        served
    }

    fn session(
        &self,
        guest: &Guest,
        client: &mut Buffered,
        upgrade: &[u8],
        (execs, containment, workdir): (&Execs, &Containment, &Path),
    ) -> io::Result<Result<(), SshRefusal>> {
        let refuse = |status, why: String| Ok(Err(SshRefusal(status, why)));
        let sshd = match Ssh::sshd() {
            Ok(sshd) => sshd,
            Err(why) => return refuse(502, why),
        };
        let bounds = containment.bounds();
        if bounds.limits.confined || bounds.limits.no_network {
            let why = "commands are kept within the working directory or without a network here (-confine, \
                       -no-network), which a session cannot be";
            return refuse(403, why.to_owned());
        }
        let host = host(containment);
        if let Host::Own { name } = &host
            && *name != guest.user
        {
            let why = format!(
                "cannot log in `{}`: commands run as `{name}` here; ask for that user",
                guest.user
            );
            return refuse(400, why);
        }
        let name = format!("ssh-{}", self.names.fetch_add(1, Ordering::SeqCst));
        let folder = self.dir.join(&name);
        let session = Folder(folder.clone());
        if let Err(why) = self.prepare(&folder, guest, &host, execs.env(&name)?, containment, workdir) {
            return refuse(500, format!("cannot ready a session: {why}"));
        }
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(sshd);
        command
            .args(["-i", "-e", "-f"])
            .arg(folder.join("sshd_config"))
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone()?)))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        let running = match execs.beside(&name, command) {
            Ok(running) => running,
            Err(why) => return refuse(502, format!("cannot start `{sshd}`: {}", why.1)),
        };
        let joined = client.send(upgrade).and_then(|()| join(client, &ours));
        drop(ours);
        running.end();
        drop(session);
        joined.map(Ok)
    }

    /// Writes what sshd reads, in a folder of the session's.
    fn prepare(
        &self,
        folder: &Path,
        guest: &Guest,
        host: &Host,
        env: Vec<(String, String)>,
        containment: &Containment,
        workdir: &Path,
    ) -> io::Result<()> {
        let key = self.key()?;
        fs::create_dir_all(folder)?;
        // Others pass through to theirs, and read nothing.
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o711))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        fs::copy(key, folder.join("host_key"))?;
        fs::write(folder.join("authorized_keys"), format!("{}\n", guest.key))?;
        let config = Config {
            guest,
            dir: folder,
            host,
            sftp: SFTP.into_iter().find(|path| Path::new(path).is_file()),
            has_pam: Path::new("/etc/pam.d/sshd").is_file(),
            env: &env,
            workdir,
        };
        fs::write(folder.join("sshd_config"), config.text())?;
        if let Some(user) = &containment.bounds().user {
            // The folder last, and no link followed: from then on its owner may put anything there.
            for name in ["host_key", "authorized_keys", "sshd_config"] {
                std::os::unix::fs::lchown(folder.join(name), Some(user.uid), Some(user.gid))?;
            }
            std::os::unix::fs::lchown(folder, Some(user.uid), Some(user.gid))?;
        }
        if *host == Host::Root && cfg!(target_os = "linux") {
            // sshd wants it, and a container seldom has it.
            let _ = fs::create_dir("/run/sshd");
        }
        Ok(())
    }

    /// This machine's key, made at its first use.
    fn key(&self) -> io::Result<PathBuf> {
        let mut made = self.key.lock().expect("no holder panics");
        if let Some(key) = &*made {
            return Ok(key.clone());
        }
        match fs::remove_dir_all(&self.dir) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        fs::create_dir_all(&self.dir)?;
        let key = self.dir.join("host_key");
        let out = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(&key)
            .stdin(Stdio::null())
            .output()?;
        if !out.status.success() {
            let text = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Err(io::Error::other(format!("ssh-keygen: {text}")));
        }
        *made = Some(key.clone());
        Ok(key)
    }
}

/// A folder that goes with the value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays goes at the next start.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn host(containment: &Containment) -> Host {
    if let Some(user) = &containment.bounds().user {
        return Host::Own {
            name: user.name.clone(),
        };
    }
    let own = rustix::process::geteuid();
    if own.is_root() {
        return Host::Root;
    }
    let name = own.as_raw().to_string();
    let found = crate::contain::User::find(&name).map(|user| user.name);
    Host::Own {
        name: found.unwrap_or(name),
    }
}

/// Carries bytes both ways until either side ends.
fn join(client: &mut Buffered, sshd: &UnixStream) -> io::Result<()> {
    sshd.set_write_timeout(Some(WRITE_LIMIT))?;
    sshd.set_nonblocking(true)?;
    let (began, mut spoken) = (Instant::now(), false);
    let mut piece = vec![0; 64 * 1024];
    loop {
        let mut moved = false;
        match client.take_ready()? {
            Some(bytes) if bytes.is_empty() => return Ok(()),
            Some(bytes) => {
                (moved, spoken) = (true, true);
                sshd.set_nonblocking(false)?;
                (&mut &*sshd).write_all(&bytes)?;
                sshd.set_nonblocking(true)?;
            }
            None => {}
        }
        spoken = spoken || began.elapsed() >= HOLD_BACK;
        if spoken {
            match (&mut &*sshd).read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    client.send(&piece[..n])?;
                    moved = true;
                }
                Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(why) => return Err(why),
            }
        }
        if !moved {
            let limit = HOLD_BACK.saturating_sub(began.elapsed());
            client.wait_ready(
                spoken.then_some(sshd),
                if spoken { Duration::from_secs(60) } else { limit },
            )?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_have_a_name_and_a_key_and_nothing_else() {
        let key = "ssh-ed25519 AAAAC3Nza+/= amy@example.com";
        let guest = Guest::parse(Some("build"), Some(key)).expect("a guest");
        assert_eq!(
            (guest.user.as_str(), guest.key.as_str()),
            ("build", "ssh-ed25519 AAAAC3Nza+/=")
        );
        Guest::parse(Some("a.b_c-1"), Some("ecdsa-sha2-nistp256 AAAA")).expect("a guest");
        Guest::parse(Some("x"), Some("sk-ssh-ed25519@openssh.com AAAA")).expect("a guest");
        for user in [
            None,
            Some(""),
            Some("../x"),
            Some("-x"),
            Some("a b"),
            Some("a\nPermitRootLogin yes"),
            Some("*"),
        ] {
            let why = Guest::parse(user, Some(key)).expect_err("no name");
            assert!(why.starts_with("invalid X-Go-Ssh-User `"), "{why}");
        }
        for key in [
            None,
            Some(""),
            Some("ssh-ed25519"),
            Some("command=\"x\" ssh-ed25519 AAAA"),
            Some("ssh-ed25519 AA;A"),
            Some("ssh-$(x) AAAA"),
            Some("rsa AAAA"),
        ] {
            assert!(Guest::parse(Some("x"), key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn a_sessions_configuration_lets_one_key_in_and_has_the_environment_of_commands() {
        let guest = Guest::parse(Some("amy"), Some("ssh-ed25519 AAAA")).expect("a guest");
        let env = [("A", "b c"), ("HOME", "/x"), ("ODD", "a\"b"), ("LINE", "a\nb")];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut config = Config {
            guest: &guest,
            dir: Path::new("/s"),
            host: &Host::Root,
            sftp: Some("/sftp"),
            has_pam: true,
            env: &env,
            workdir: Path::new("/it's"),
        };
        let text = config.text();
        for line in [
            "AllowUsers amy",
            "AuthorizedKeysCommand /bin/echo ssh-ed25519 AAAA",
            "AuthorizedKeysFile none",
            "UsePAM yes",
            "Subsystem sftp /sftp",
            "SetEnv \"A=b c\" \"SHLVL=1\"",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}: {text}");
        }
        assert!(text.contains(r"cd '\''/it'\''\'\'''\''s'\'' ||"), "{text}");
        let own = Host::Own {
            name: "amy".to_owned(),
        };
        config.host = &own;
        let text = config.text();
        assert!(
            text.lines()
                .any(|line| line == "AuthorizedKeysFile /s/authorized_keys"),
            "{text}"
        );
        assert!(!text.contains("AuthorizedKeysCommand"), "{text}");
    }
}
