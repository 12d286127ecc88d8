use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::counterparts::{has_program, output, recipe, there_is};
use super::guest;
use super::static_programs::static_programs;
use crate::world::World;

/// A Docker engine of the test's own, ended with it.
struct Engine {
    child: Child,
    socket: PathBuf,
}

impl Engine {
    /// `None`, said aloud, where the machine does not allow one.
    fn start(dir: &Path) -> Option<Engine> {
        let socket = dir.join("docker.sock");
        let mut child = Command::new("dockerd")
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--bridge=none",
                "--data-root",
            ])
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut told = BufReader::new(child.stderr.take().expect("piped"));
        let (mut before, mut line) = (String::new(), String::new());
        while told.read_line(&mut line).is_ok_and(|n| n > 0) {
            if line.contains("API listen on") {
                std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
                return Some(Engine { child, socket });
            }
            before += &std::mem::take(&mut line);
        }
        let _ = child.wait();
        there_is(
            &format!("leave to run a Docker engine here:\n{before}"),
            "docker.io",
            false,
        );
        None
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()));
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Those lines of the Dockerfile that `docker import` can follow.
fn changes() -> Vec<String> {
    let text = fs::read_to_string(recipe("docker/Dockerfile")).expect("it is there");
    let known = ["ENV ", "USER ", "WORKDIR ", "ENTRYPOINT ", "CMD "];
    let lines = text
        .lines()
        .filter(|line| known.iter().any(|word| line.starts_with(word)));
    lines.map(str::to_owned).collect()
}

/// A root file system with stage0 and the folders that the Dockerfile makes.
fn root(programs: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut folder = |path: &str, owner: u64, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        tar.append_data(&mut header, path, &b""[..]).expect("added");
    };
    folder("tmp", 0, 0o1777);
    folder("workdir", 1000, 0o755);
    folder("home/build", 1000, 0o755);
    folder("var/lib/burrow", 1000, 0o755);
    tar.append_path_with_name(programs.join("stage0"), "usr/local/bin/stage0")
        .expect("added");
    tar.into_inner().expect("whole")
}

#[test]
fn a_container_fetches_its_buildlet_and_runs_commands_as_nobody_special() {
    let all = has_program("dockerd") && has_program("docker");
    if !there_is(
        "Docker engine",
        "docker.io",
        all && rustix::process::geteuid().is_root(),
    ) {
        return;
    }
    let Some(programs) = static_programs() else { return };
    let world = World::new();
    world.publish_program("0.1.0", &programs.join("buildlet"));
    let Some(engine) = Engine::start(world.dir.path()) else {
        return;
    };
    let mut import = engine.docker();
    import.arg("import");
    for change in changes() {
        import.args(["--change", &change]);
    }
    let mut import = import
        .args(["-", "builder"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut input = import.stdin.take().expect("piped");
    input.write_all(&root(&programs)).expect("taken");
    drop(input);
    assert!(import.wait().expect("waited for").success());
    let mut run = engine.docker();
    run.args(["run", "--detach", "--network=host", "--name=builder"]);
    for (name, value) in [
        ("MANIFEST", format!("http://{}/b/manifest", world.address)),
        ("PUBLIC_KEYS", world.public_key.clone()),
    ] {
        run.args(["--env", &format!("BURROW_{name}={value}")]);
    }
    output(run.args(["builder", "-workdir=/workdir", "-listen=127.0.0.1:0"]));
    let mut logs = engine
        .docker()
        .args(["logs", "--follow", "builder"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let address = guest::listening_at(BufReader::new(logs.stderr.take().expect("piped")));
    guest::answers_and_runs(&address, None, "/proc/self/exe");
    let whose = output(
        engine
            .docker()
            .args(["inspect", "--format={{.Config.User}}", "builder"]),
    );
    assert_eq!(whose.trim(), "1000:1000");
    guest::ask(&address, None, "POST", "/halt", "");
    let code = output(engine.docker().args(["wait", "builder"]));
    assert_eq!(code.trim(), "0");
    logs.wait().expect("waited for");
    output(engine.docker().args(["rm", "builder"]));
}
