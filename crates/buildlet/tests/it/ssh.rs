//! Sessions, with OpenSSH's own client.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::machine::Machine;

/// Whether both of OpenSSH's sides are here.
fn is_here() -> bool {
    let programs = ["/usr/bin/ssh", "/usr/bin/ssh-keygen", "/usr/sbin/sshd"];
    let missing = programs.iter().find(|path| !std::path::Path::new(path).exists());
    if let Some(missing) = missing {
        let why = format!("there is no `{missing}`; install openssh-client and openssh-server");
        assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
        eprintln!("skipped: {why}");
    }
    missing.is_none()
}

fn own_name() -> String {
    let out = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A key of a visitor's, and a port that leads to the machine's `/connect-ssh`, as a gateway does it.
struct Gateway {
    folder: tempfile::TempDir,
    port: u16,
}

impl Gateway {
    fn new(machine: &Machine, user: &str) -> Gateway {
        let folder = tempfile::tempdir().unwrap();
        for name in ["key", "other"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ecdsa", "-N", "", "-f"])
                .arg(folder.path().join(name))
                .status();
            assert!(made.unwrap().success());
        }
        let key = fs::read_to_string(folder.path().join("key.pub")).unwrap();
        let head = format!(
            "POST /connect-ssh HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\nX-Go-Ssh-User: {user}\r\n\
             X-Go-Authorized-Key: {}\r\n\r\n",
            key.trim()
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = machine.address.clone();
        std::thread::spawn(move || {
            for visitor in listener.incoming().flatten() {
                let mut machine = TcpStream::connect(&address).unwrap();
                machine.write_all(head.as_bytes()).unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    machine.read_exact(&mut byte).unwrap();
                    answer.push(byte[0]);
                }
                let wanted =
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: ssh\r\nConnection: Upgrade\r\n\r\n";
                assert_eq!(String::from_utf8_lossy(&answer), wanted);
                for (mut from, mut to) in [
                    (visitor.try_clone().unwrap(), machine.try_clone().unwrap()),
                    (machine, visitor),
                ] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Gateway { folder, port }
    }

    fn program(&self, program: &str, key: &str) -> Command {
        let mut command = Command::new(program);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "ConnectTimeout=30",
            &format!("Port={}", self.port),
        ] {
            command.args(["-F", "/dev/null", "-o", option]);
        }
        command
            .arg("-i")
            .arg(self.folder.path().join(key))
            .stdin(Stdio::null());
        command
    }

    fn ssh(&self, user: &str, args: &[&str]) -> Output {
        self.program("ssh", "key")
            .arg(format!("{user}@127.0.0.1"))
            .args(args)
            .output()
            .unwrap()
    }
}

fn text(out: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

#[test]
fn a_session_is_where_a_command_would_be_and_ends_with_all_it_started() {
    if !is_here() {
        return;
    }
    let mut machine = Machine::start();
    let (user, home) = (own_name(), std::env::var("HOME").unwrap_or_default());
    let keys = PathBuf::from(home).join(".ssh/authorized_keys");
    let before = fs::read(&keys).ok();
    let gateway = Gateway::new(&machine, &user);
    let wanted = machine.sh("echo $WORKDIR; pwd; echo $TMPDIR; echo $PATH").text();
    let out = gateway.ssh(&user, &["echo $WORKDIR; pwd; echo $TMPDIR; echo $PATH; exit 7"]);
    assert_eq!((text(&out), out.status.code()), (wanted, Some(7)));
    // With a terminal, and a shell that reads what is typed.
    let mut shell = gateway.program("ssh", "key");
    let mut shell = shell
        .args(["-tt", &format!("{user}@127.0.0.1")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    shell
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"tty; echo left > begun; (setsid sleep 75001 &); stty size\n")
        .unwrap();
    let begun = machine.work("begun");
    machine.until("it has typed", |_| begun.exists());
    // A command's end is none of the session's.
    assert_eq!(machine.sh("sleep 0.1").state(), "ok");
    shell
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"echo still; exit 4\n")
        .unwrap();
    let out = shell.wait_with_output().unwrap();
    let said = text(&out);
    assert!(said.contains("/dev/pts/") && said.contains("still\r\n"), "{said}");
    assert_eq!(out.status.code(), Some(4));
    machine.until("what it left is ended", |_| !runs("75001"));
    // No key of a visitor's stays.
    let state = machine.folder.path().join("state/ssh");
    machine.until("its folder goes", |_| fs::read_dir(&state).unwrap().count() == 2);
    assert_eq!(fs::read(&keys).ok(), before);
}

#[test]
fn files_go_both_ways_and_a_wrong_key_does_not() {
    if !is_here() {
        return;
    }
    let machine = Machine::start();
    let user = own_name();
    let gateway = Gateway::new(&machine, &user);
    let own = gateway.folder.path();
    let big: Vec<u8> = (0..3_000_000u32).map(|n| (n >> 5) as u8).collect();
    fs::write(own.join("big"), &big).unwrap();
    fs::write(
        own.join("batch"),
        format!("put {0}/big sent\nget sent {0}/back\n", own.display()),
    )
    .unwrap();
    let out = gateway
        .program("sftp", "key")
        .arg("-b")
        .arg(own.join("batch"))
        .arg(format!("{user}@127.0.0.1"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text(&out));
    assert!(fs::read(machine.work("sent")).unwrap() == big && fs::read(own.join("back")).unwrap() == big);
    let out = gateway
        .program("ssh", "other")
        .arg(format!("{user}@127.0.0.1"))
        .arg("echo in")
        .output()
        .unwrap();
    assert!(
        out.stdout.is_empty() && text(&out).contains("Permission denied"),
        "{}",
        text(&out)
    );
    // Nor does a way through the machine to somewhere else.
    let out = gateway.ssh(&user, &["-W", "192.0.2.1:9"]);
    assert!(
        !out.status.success() && text(&out).contains("forwarding failed"),
        "{}",
        text(&out)
    );
}

#[test]
fn what_is_no_guest_is_refused() {
    let machine = Machine::start();
    let ask = |machine: &Machine, headers: &str, body: &[u8]| {
        machine.request("POST", "/connect-ssh", headers, body).shown()
    };
    let key = "X-Go-Authorized-Key: ssh-ed25519 AAAA\r\n";
    let whole = format!("X-Go-Ssh-User: root\r\n{key}");
    assert_eq!(machine.get("/connect-ssh").shown(), "400 requires POST method");
    assert_eq!(ask(&machine, &whole, b"x"), "400 a request for ssh has no body");
    let wanted = "400 invalid X-Go-Ssh-User `../x`; wanted 1 to 32 of letters, digits, `.`, `_`, `-`";
    assert_eq!(
        ask(&machine, &format!("X-Go-Ssh-User: ../x\r\n{key}"), b""),
        wanted
    );
    let wanted = "400 invalid X-Go-Authorized-Key; wanted one public key, as `ssh-ed25519 AAAA…`";
    assert_eq!(ask(&machine, "X-Go-Ssh-User: root\r\n", b""), wanted);
    if !is_here() {
        return;
    }
    let closed = Machine::with(&["-no-network"], &[]);
    assert!(ask(&closed, &whole, b"").starts_with("403 commands are kept within"));
    if own_name() == "root" {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), open).unwrap();
        let workdir = format!("-workdir={}", folder.path().join("work").display());
        let machine = Machine::with(&["-build-user=nobody", &workdir], &[]);
        let wanted = "400 cannot log in `root`: commands run as `nobody` here; ask for that user";
        assert_eq!(ask(&machine, &whole, b""), wanted);
    }
}

/// Whether a process sleeps for so long.
fn runs(argument: &str) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| {
        line.starts_with(b"sleep") && line.split(|&b| b == 0).any(|arg| arg == argument.as_bytes())
    })
}
