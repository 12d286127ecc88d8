//! A lent machine over ssh: by the farm's gateway, as Go's gomote calls it, and by `burrow gomote ssh`.
//!
//! The machine is a double that dials in; its ssh server is OpenSSH's.

use std::fs;
use std::io;
use std::net::TcpStream as BlockingTcp;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as Pair;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use buildlet::trust::Trust;
use rustls_pki_types::ServerName;
use testkit::peer::{Era, go_program};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::dial_in::{connected, said};
use crate::peers::{Farm, commit, git};
use crate::{burrow, until};

/// Where Go's gomote looks.
const DOOR: &str = "127.0.0.1:8119";
const SSHD: &str = "/usr/sbin/sshd";

#[test]
fn a_lent_machine_is_had_over_ssh() {
    if !Path::new(SSHD).exists() {
        let why = "there is no OpenSSH server (Debian's openssh-server)";
        assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
        eprintln!("skipped: {why}");
        return;
    }
    let _alone = testkit::peer::coordinators_port();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for name in ["host", "amy", "eve"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(path(name))
            .status();
        assert!(made.expect("ssh-keygen runs").success());
    }
    let farm = Farm::serve(folder.path(), &farm_toml(folder.path()));
    // It has a certificate of its own once it is up.
    until("its door is open", || BlockingTcp::connect(DOOR).ok());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let machine = Arc::new(Machine::new(folder.path()));
    runtime.spawn(machine.run());
    until("the machine is there", || connected(&farm).then_some(()));

    let config = path("burrow.toml").display().to_string();
    let token = |name: &str| {
        let made = burrow(&farm.state, &["token", "--config", &config, "new", name]);
        assert!(made.status.success(), "{}", said(&made));
        text(&made.stdout).trim().to_owned()
    };
    let (amy, eve) = (token("amy"), token("eve"));
    let gomote =
        |token: &str, args: &[&str]| burrow(&farm.state, &[&["gomote", "--token", token], args].concat());
    let says = |token: &str, args: &[&str]| {
        let out = gomote(token, args);
        assert!(out.status.success(), "{}", said(&out));
        text(&out.stdout)
    };
    let name = says(&amy, &["create", "linux-amd64"]).trim().to_owned();
    let public = path("amy.pub").display().to_string();
    let told = says(&amy, &["ssh-keys", &public]);
    let port = told
        .split("ssh -p ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .expect("a port")
        .to_owned();
    assert!(
        told.starts_with("the farm knows 1 of your keys") && told.contains("SHA256:"),
        "{told}"
    );
    says(&eve, &["ssh-keys", &path("eve.pub").display().to_string()]);
    let bad = gomote(&amy, &["ssh-keys", &config]);
    assert!(
        said(&bad).contains("is no public key of OpenSSH"),
        "{}",
        said(&bad)
    );

    let ssh = |key: &str, who: &str, words: &[&str]| -> Output {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-p", &port, "-i"]).arg(path(key));
        for option in OPTIONS {
            command.args(["-o", option]);
        }
        command
            .arg(format!("{who}@127.0.0.1"))
            .args(words)
            .stdin(Stdio::null());
        command.output().expect("ssh runs")
    };
    let out = ssh("amy", &name, &["echo there; exit 3"]);
    assert_eq!(
        (text(&out.stdout), out.status.code()),
        ("there\n".to_owned(), Some(3)),
        "{}",
        said(&out)
    );
    for (key, who) in [("eve", name.as_str()), ("amy", "user-amy-linux-amd64-7")] {
        let out = ssh(key, who, &["true"]);
        assert!(said(&out).contains("Permission denied"), "{}", said(&out));
    }
    let here = whoami();
    // What follows the name is ssh's.
    let direct = Command::new(env!("CARGO_BIN_EXE_burrow"))
        .arg("--state-dir")
        .arg(&farm.state)
        .args([
            "gomote", "--token", &amy, "ssh", "--user", &here, &name, "--", "echo", "direct",
        ])
        .env_remove("BURROW_SERVER")
        .stdin(Stdio::null())
        .output()
        .expect("burrow runs");
    assert_eq!(text(&direct.stdout), "direct\n", "{}", said(&direct));

    gos_gomote_calls_it(folder.path(), &farm, &name, &port);

    says(&amy, &["destroy", &name]);
    let out = ssh("amy", &name, &["true"]);
    assert!(
        said(&out).contains("Permission denied"),
        "it is nobody's any more: {}",
        said(&out)
    );
}

const OPTIONS: [&str; 6] = [
    "BatchMode=yes",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
];

/// Go's gomote runs `ssh -p 2222 INSTANCE@farmer.golang.org`, whatever farm it was told of: the program it finds goes here.
fn gos_gomote_calls_it(folder: &Path, farm: &Farm, name: &str, port: &str) {
    let Some(gomote) = go_program("gomote", Era::Mature) else {
        return;
    };
    let (bin, home) = (folder.join("bin"), folder.join("home"));
    fs::create_dir_all(&bin).expect("a folder");
    fs::create_dir_all(home.join(".config/gomote")).expect("a folder");
    let options: String = OPTIONS.iter().map(|option| format!(" -o {option}")).collect();
    let program = format!(
        "#!/bin/sh\ntest \"$1 $2\" = '-p 2222' || exit 9\n\
         exec /usr/bin/ssh -F none -i '{}'{options} -p {port} \"${{3%@farmer.golang.org}}@127.0.0.1\" echo by gomote\n",
        folder.join("amy").display(),
    );
    fs::write(bin.join("ssh"), program).expect("a file");
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let key = burrow(
        &farm.state,
        &[
            "key",
            "derive",
            "--master-key",
            farm.state.join("master-key").to_str().expect("a path"),
            "user-amy",
        ],
    );
    let key = text(&key.stdout).split(' ').next().expect("a key").to_owned();
    fs::write(home.join(".config/gomote/user-amy.token"), key).expect("a file");
    for more in [&[][..], &["-i-will-not-break-the-host"]] {
        let out = Command::new(&gomote)
            .args(["-localdev", "-user=amy", "ssh"])
            .args(more)
            .arg(name)
            .env("HOME", &home)
            .env("PATH", &bin)
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null())
            .output()
            .expect("gomote runs");
        assert!(
            text(&out.stdout).ends_with("by gomote\n"),
            "{}{}",
            text(&out.stdout),
            said(&out)
        );
    }
}

fn farm_toml(folder: &Path) -> String {
    let repo = folder.join("widget");
    fs::create_dir(&repo).expect("a folder");
    git(&repo, &["init", "-q", "-b", "main"]);
    commit(&repo, "one", "true");
    format!(
        r#"
[farm]
listen = "127.0.0.1:0"
listen_https = "{DOOR}"
listen_ssh = "127.0.0.1:0"
[repo.widget]
url = "{}"
[host.rack]
pool = "reverse"
accept_development_keys = true
ssh_user = "{}"
[builder.linux-amd64]
host = "rack"
post_submit = "never"
[recipe.widget]
steps = [{{ name = "script", run = ["sh", "step.sh"] }}]
"#,
        repo.display(),
        whoami(),
    )
}

fn whoami() -> String {
    let out = Command::new("id").arg("-un").output().expect("id runs");
    text(&out.stdout).trim().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A machine that dials in, is there to be lent, and has an ssh server.
struct Machine {
    folder: PathBuf,
    tls: TlsConnector,
}

impl Machine {
    fn new(folder: &Path) -> Machine {
        let _ = fs::create_dir_all("/run/sshd");
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n",
            folder.join("host").display(),
            folder.join("authorized").display(),
        );
        fs::write(folder.join("sshd_config"), config).expect("written");
        let tls = Trust::Anybody.client_config().expect("a configuration");
        Machine {
            folder: folder.to_owned(),
            tls: TlsConnector::from(Arc::new(tls)),
        }
    }

    async fn run(self: Arc<Machine>) -> io::Result<()> {
        let key = buildlet_api::MasterKey::parse(b"gophers rule")
            .expect("a key")
            .builder_key("rack");
        let head = format!(
            "X-Go-Builder-Hostname: double\r\nX-Go-Builder-Key: {key}\r\nX-Go-Builder-Version: 27\r\n\
             X-Go-Host-Type: rack\r\nX-Revdial-Version: 2\r\n"
        );
        let mut control = self.upgraded("/reverse", &head).await?;
        let (mut listener, mut piece) = (revdial::v2::Listener::new(), [0; 512]);
        loop {
            let read = control.read(&mut piece).await?;
            if read == 0 {
                return Ok(());
            }
            for event in listener.receive(&piece[..read]).map_err(io::Error::other)? {
                if let revdial::v2::ListenerEvent::Dial { path } = event {
                    let machine = self.clone();
                    tokio::spawn(async move { machine.answer(&path).await });
                }
            }
        }
    }

    async fn upgraded(&self, path: &str, headers: &str) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(DOOR).await?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut stream = self.tls.connect(name, tcp).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: \r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let answer = head(&mut stream).await?;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        Ok(stream)
    }

    async fn answer(&self, path: &str) -> io::Result<()> {
        let mut stream = self.upgraded(path, "").await?;
        loop {
            let head = head(&mut stream).await?;
            let field = |name: &str| {
                let line = head.lines().find(|line| line.to_lowercase().starts_with(name));
                line.map(|line| line[name.len()..].trim().to_owned())
            };
            let length = field("content-length:")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            match head.split(' ').nth(1).unwrap_or_default() {
                "/connect-ssh" => {
                    assert_eq!(field("x-go-ssh-user:"), Some(whoami()));
                    let key = field("x-go-authorized-key:").expect("a key");
                    fs::write(self.folder.join("authorized"), format!("{key}\n"))?;
                    stream
                        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: ssh\r\nConnection: Upgrade\r\n\r\n")
                        .await?;
                    stream.flush().await?;
                    let mut server = self.server()?;
                    tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
                    return Ok(());
                }
                "/status" => answered(&mut stream, "200 OK", r#"{"Version":27}"#).await?,
                "/removeall" | "/halt" => answered(&mut stream, "200 OK", "").await?,
                "/workdir" => answered(&mut stream, "200 OK", "/nowhere").await?,
                _ => answered(&mut stream, "400 Bad Request", "a double does not do this").await?,
            }
        }
    }

    fn server(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = Pair::pair()?;
        let (input, output) = (OwnedFd::from(theirs.try_clone()?), OwnedFd::from(theirs));
        Command::new(SSHD)
            .arg("-i")
            .arg("-f")
            .arg(self.folder.join("sshd_config"))
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::null())
            .spawn()?;
        ours.set_nonblocking(true)?;
        UnixStream::from_std(ours)
    }
}

async fn answered(stream: &mut TlsStream<TcpStream>, status: &str, body: &str) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await
}

async fn head(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
