//! The gateway between OpenSSH's own programs: its client calls, its server is the machine.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use buildlet_api::BoxedStream;
use ssh::{Farm, Keys, Lent};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, UnixStream};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);
const SSHD: &str = "/usr/sbin/sshd";
const NAME: &str = "user-amy-linux-0";

/// Whether OpenSSH is here; said aloud where not, and an error where nothing may be skipped.
fn openssh() -> bool {
    let there = Path::new(SSHD).exists();
    if !there {
        let why = "there is no OpenSSH server (Debian's openssh-server)";
        assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
        eprintln!("skipped: {why}");
    }
    there
}

/// A farm with one machine, which is this one.
struct Double {
    folder: PathBuf,
    keys: Vec<String>,
    ended: CancellationToken,
    used: AtomicUsize,
    /// Why the machine cannot be had.
    away: Option<&'static str>,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Farm for Double {
    fn lent<'a>(&'a self, name: &'a str) -> Answer<'a, Result<Lent, String>> {
        let lent = Lent {
            name: NAME.to_owned(),
            owner: "user-amy".to_owned(),
            login: whoami(),
            keys: self.keys.clone(),
            ended: self.ended.clone(),
        };
        let known = (name == NAME).then_some(lent).ok_or("no such loan".to_owned());
        Box::pin(std::future::ready(known))
    }

    /// What a buildlet does: lets the key in, and has the server speak.
    fn connect<'a>(&'a self, _: &'a Lent, key: &'a str) -> Answer<'a, Result<BoxedStream, String>> {
        Box::pin(async move {
            if let Some(why) = self.away {
                return Err(why.to_owned());
            }
            fs::write(self.folder.join("authorized"), format!("{key}\n")).expect("written");
            let server = || -> io::Result<UnixStream> {
                let (ours, theirs) = Pair::pair()?;
                let (input, output) = (OwnedFd::from(theirs.try_clone()?), OwnedFd::from(theirs));
                Command::new(SSHD)
                    .arg("-i")
                    .arg("-f")
                    .arg(self.folder.join("config"))
                    .stdin(Stdio::from(input))
                    .stdout(Stdio::from(output))
                    .stderr(Stdio::null())
                    .spawn()?;
                ours.set_nonblocking(true)?;
                UnixStream::from_std(ours)
            };
            server()
                .map(|stream| Box::new(stream) as BoxedStream)
                .map_err(|why| why.to_string())
        })
    }

    fn used<'a>(&'a self, _: &'a Lent) -> Answer<'a, ()> {
        self.used.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(()))
    }
}

struct World {
    folder: tempfile::TempDir,
    port: u16,
    farm: Arc<Double>,
    keys: Arc<Keys>,
    stop: CancellationToken,
}

impl World {
    async fn new(away: Option<&'static str>) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["host", "amy", "eve", "certified"] {
            let file = path(name);
            let made = std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(&file)
                .status();
            assert!(made.expect("ssh-keygen runs").success());
        }
        // It wants a folder of its own even where it needs none.
        let _ = fs::create_dir_all("/run/sshd");
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n\
             Subsystem sftp internal-sftp\nAcceptEnv WHO\n",
            path("host").display(),
            path("authorized").display(),
        );
        fs::write(path("config"), config).expect("written");
        let amy = fs::read_to_string(path("amy.pub")).expect("a key");
        let farm = Arc::new(Double {
            folder: folder.path().to_owned(),
            keys: ssh::authorized(&amy).expect("a key"),
            ended: CancellationToken::new(),
            used: AtomicUsize::new(0),
            away,
        });
        let keys = Arc::new(Keys::open(&path("farm")).expect("keys"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let stop = CancellationToken::new();
        tokio::spawn(ssh::serve(listener, farm.clone(), keys.clone(), stop.clone()));
        World {
            folder,
            port,
            farm,
            keys,
            stop,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self, key: &str) -> Vec<String> {
        let mut words = vec!["-i".to_owned(), self.path(key).display().to_string()];
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=20",
        ] {
            words.extend(["-o".to_owned(), option.to_owned()]);
        }
        words
    }

    fn ssh(&self, key: &str, who: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(["-F", "none"])
            .args(self.options(key))
            .args(["-p", &self.port.to_string()])
            .args(args)
            .arg(format!("{who}@127.0.0.1"))
            .kill_on_drop(true);
        command
    }

    async fn run(&self, key: &str, who: &str, args: &[&str], words: &[&str]) -> Output {
        let ran = self.ssh(key, who, args).args(words).stdin(Stdio::null()).output();
        timeout(LIMIT, ran).await.expect("it ends").expect("ssh runs")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn whoami() -> String {
    let out = std::process::Command::new("id")
        .arg("-un")
        .output()
        .expect("id runs");
    String::from_utf8(out.stdout).expect("text").trim().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_has_shells_commands_files_and_ports_of_the_machine() {
    if !openssh() {
        return;
    }
    let world = World::new(None).await;
    let out = world
        .run("amy", NAME, &[], &["echo out; echo err >&2; exit 3"])
        .await;
    assert_eq!(
        (text(&out.stdout), out.status.code()),
        ("out\n".to_owned(), Some(3)),
        "{}",
        text(&out.stderr)
    );
    assert!(text(&out.stderr).contains("err\n"));
    // As golang/build's gomote of 2018 may call it.
    let out = world
        .run("amy", &format!("mutable-{NAME}"), &[], &["kill -TERM $$"])
        .await;
    assert_eq!(out.status.code(), Some(255), "ended by a signal");
    let out = world
        .run("amy", NAME, &["-o", "SetEnv=WHO=amy"], &["echo $WHO"])
        .await;
    assert_eq!(text(&out.stdout), "amy\n");
    let out = world
        .run("amy", NAME, &["-tt"], &["test -t 0 && echo a terminal"])
        .await;
    assert!(text(&out.stdout).contains("a terminal"), "{}", text(&out.stderr));

    // More both ways than all windows and buffers hold, and neither waits for the other.
    let sent: Vec<u8> = (0..12u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut child = world
        .ssh("amy", NAME, &[])
        .arg("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ssh runs");
    let mut input = child.stdin.take().expect("piped");
    let bytes = sent.clone();
    let writing = tokio::spawn(async move { input.write_all(&bytes).await });
    let out = timeout(LIMIT, child.wait_with_output())
        .await
        .expect("it ends")
        .expect("ssh runs");
    writing.await.expect("no panic").expect("all was taken");
    assert!(
        out.status.success() && out.stdout == sent,
        "{} bytes came back",
        out.stdout.len()
    );

    // Files, which the original refuses.
    fs::write(world.path("file"), &sent[..300_000]).expect("written");
    let (from, to) = (world.path("file"), world.path("copied"));
    let mut copy = Command::new("scp");
    copy.args(["-F", "none", "-q", "-P", &world.port.to_string()])
        .args(world.options("amy"))
        .arg(&from)
        .arg(format!("{NAME}@127.0.0.1:{}", to.display()));
    let copied = timeout(LIMIT, copy.output())
        .await
        .expect("it ends")
        .expect("scp runs");
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    assert_eq!(fs::read(to).expect("there"), &sent[..300_000]);

    // A port of the machine's own.
    let service = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = service.local_addr().expect("bound").port();
    tokio::spawn(async move {
        let (mut tcp, _) = service.accept().await.expect("a connection");
        tcp.write_all(b"a service\n").await.expect("sent");
    });
    let out = world
        .run("amy", NAME, &["-W", &format!("127.0.0.1:{port}")], &[])
        .await;
    assert_eq!(text(&out.stdout), "a service\n", "{}", text(&out.stderr));
    assert!(world.farm.used.load(Ordering::SeqCst) >= 5, "each call is a use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_is_let_in_and_the_end_of_the_loan_is_the_end() {
    if !openssh() {
        return;
    }
    let world = World::new(None).await;
    for (key, who) in [("eve", NAME), ("amy", "user-amy-linux-1"), ("amy", "root")] {
        let out = world.run(key, who, &[], &["echo in"]).await;
        assert_eq!(out.status.code(), Some(255), "{key} {who}");
        assert!(
            text(&out.stderr).contains("Permission denied (publickey)"),
            "{}",
            text(&out.stderr)
        );
        assert!(out.stdout.is_empty());
    }
    // A certificate of the farm's opens for who has its key.
    let certify = |name: &str, age: u64| {
        let public = fs::read_to_string(world.path("certified.pub")).expect("a key");
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = since.expect("after 1970").as_secs() - age;
        let made = world
            .keys
            .certify(&public, name, "user-amy", now, Duration::from_secs(300));
        fs::write(world.path("certified-cert.pub"), made.expect("signed")).expect("written");
    };
    for (name, age, wanted) in [
        (NAME, 0, Some(0)),
        (NAME, 400, Some(255)),
        ("user-amy-linux-1", 0, Some(255)),
    ] {
        certify(name, age);
        let out = world.run("certified", NAME, &[], &["true"]).await;
        assert_eq!(out.status.code(), wanted, "{name} {age}: {}", text(&out.stderr));
    }
    let child = world
        .ssh("amy", NAME, &[])
        .arg("echo up; sleep 100")
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.expect("ssh runs");
    let mut line = [0; 3];
    let mut out = child.stdout.take().expect("piped");
    let read = tokio::io::AsyncReadExt::read_exact(&mut out, &mut line);
    timeout(LIMIT, read).await.expect("it comes").expect("it is up");
    world.farm.ended.cancel();
    let ended = timeout(LIMIT, child.wait())
        .await
        .expect("it ends")
        .expect("ssh runs");
    assert_eq!(ended.code(), Some(255));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_is_told_why_there_is_no_machine() {
    if !openssh() {
        return;
    }
    let world = World::new(Some("machine rack-1 is out of reach")).await;
    let out = world.run("amy", NAME, &[], &["true"]).await;
    assert_eq!(out.status.code(), Some(255));
    let said = text(&out.stderr);
    assert!(
        said.contains("cannot be had over ssh: machine rack-1 is out of reach"),
        "{said}"
    );
}
