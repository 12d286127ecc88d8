//! What commands are kept within, looked at from outside: `/proc`, the files of groups, and attempts to get out.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::archives::{file, tgz};
use crate::machine::{Answer, Machine};

const NOBODY: u32 = 65534;

/// A machine that can do `what`; `None`, said aloud, where this one cannot.
fn able(machine: Machine, what: &[&str]) -> Option<Machine> {
    let status: Value = serde_json::from_slice(&machine.get("/status").body).unwrap();
    for what in what {
        let told = &status["Containment"][what];
        if told["by"].is_null() {
            let why = format!("this machine cannot do `{what}`: {told}");
            assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
            eprintln!("skipped: {why}");
            return None;
        }
    }
    Some(machine)
}

fn fields<'a>(limits: &[(&'a str, &'a str)], script: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("cmd", "/bin/bash"),
        ("mode", "sys"),
        ("cmdArg", "-c"),
        ("cmdArg", script),
    ];
    fields.extend(limits);
    fields
}

fn run(machine: &Machine, limits: &[(&str, &str)], script: &str) -> Answer {
    machine.post("/exec", &fields(limits, script))
}

/// All processes whose command line has `text`, this one aside.
fn pids_with(text: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != std::process::id() && String::from_utf8_lossy(&line).contains(text)
    })
    .collect()
}

/// Starts it beside, and waits until it has made the file `begun`.
fn start(machine: &mut Machine, id: &str, limits: &[(&str, &str)], script: &str) {
    let answer = machine.post(&format!("/burrow/exec?id={id}"), &fields(limits, script));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let begun = machine.work("begun");
    machine.until("it begins", |_| begun.exists());
}

/// The groups that machines have now, by the instance in their names.
fn groups(instance: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let dirs = mounts.filter_map(|line| line.split(' ').nth(4).map(PathBuf::from));
    let mut found = Vec::new();
    let mut look: Vec<PathBuf> = dirs.collect();
    while let Some(dir) = look.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy() == format!("burrow-{instance}") {
                    found.push(entry.path());
                }
                look.push(entry.path());
            }
        }
    }
    found
}

fn instance(machine: &Machine) -> String {
    let status: Value = serde_json::from_slice(&machine.get("/status").body).unwrap();
    status["Instance"].as_str().unwrap().to_owned()
}

#[test]
fn a_machine_says_what_it_is_and_what_it_can_do() {
    let machine = Machine::start();
    let status: Value = serde_json::from_slice(&machine.get("/status").body).unwrap();
    for feature in ["exec2", "facts", "limits"] {
        assert!(
            status["Features"].as_array().unwrap().contains(&feature.into()),
            "{status}"
        );
    }
    let facts = &status["Facts"];
    let uname = Command::new("uname").arg("-r").output().unwrap();
    assert_eq!(facts["kernel"], String::from_utf8_lossy(&uname.stdout).trim());
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(facts["boot_id"], boot.trim());
    assert!(facts["memory_bytes"].as_u64().unwrap() > facts["memory_free_bytes"].as_u64().unwrap());
    assert!(facts["disk_bytes"].as_u64().unwrap() > facts["disk_free_bytes"].as_u64().unwrap());
    assert!(facts["cpus"].as_u64().unwrap() > 0);
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(
        facts["clock_ms"]
            .as_u64()
            .unwrap()
            .abs_diff(clock.as_millis() as u64)
            < 60_000
    );
    for what in [
        "tree",
        "memory",
        "processes",
        "network",
        "write",
        "user",
        "metadata",
    ] {
        let told = &status["Containment"][what];
        assert!(
            told["by"].is_string() != told["cannot"].is_string(),
            "{what}: {told}"
        );
    }
    let began = Instant::now();
    while serde_json::from_slice::<Value>(&machine.get("/status").body).unwrap()["Facts"]["tools"].is_null() {
        assert!(
            began.elapsed() < Duration::from_secs(50),
            "its tools are not told"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_tree_is_ended_however_it_grows() {
    let Some(mut machine) = able(Machine::start(), &["tree"]) else {
        return;
    };
    let instance = instance(&machine);
    assert!(!groups(&instance).is_empty());
    // Each is a session of its own without the mark, and lives for a moment: who looks for it in a list comes late.
    let hop = machine.work("hop").display().to_string();
    let script = format!(
        "printf '#!/bin/sh\\ntrap \"\" TERM\\n(env -i setsid {hop} &)\\n' > {hop}; chmod +x {hop}; \
         env -i setsid {hop} & (trap '' TERM; setsid sleep 74001 >/dev/null 2>&1 &); echo > begun; sleep 74002"
    );
    start(&mut machine, "grows", &[("tree", "whole")], &script);
    machine.until("it grows", |_| !pids_with(&hop).is_empty());
    machine.until("it sleeps", |_| !pids_with("74001").is_empty());
    let group = pids_with("74001")[0];
    let group = fs::read_to_string(format!("/proc/{group}/cgroup")).unwrap();
    assert!(group.contains(&format!("burrow-{instance}")), "{group}");
    machine.request("DELETE", "/burrow/exec/grows", "", b"");
    assert_eq!(machine.get("/burrow/exec/grows").state(), "signal: terminated");
    for text in [hop.as_str(), "74001", "74002"] {
        assert_eq!(pids_with(text), [0u32; 0], "{text}");
    }
    // Its group is gone, the machine's goes with it.
    for group in groups(&instance) {
        let below = fs::read_dir(group).unwrap().flatten();
        assert_eq!(below.filter(|entry| entry.path().is_dir()).count(), 0);
    }
    machine.post("/halt", &[]);
    assert_eq!(machine.code(), Some(0));
    assert!(groups(&instance).is_empty());
}

#[test]
fn what_a_machine_that_died_left_running_is_ended_by_the_next() {
    let Some(mut machine) = able(Machine::start(), &["tree"]) else {
        return;
    };
    let instance = instance(&machine);
    start(
        &mut machine,
        "left",
        &[("tree", "whole")],
        "(setsid sleep 74003 &); echo > begun; sleep 74003",
    );
    machine.child.kill().unwrap();
    machine.child.wait().unwrap();
    assert!(!pids_with("74003").is_empty());
    let _next = Machine::start();
    assert_eq!(pids_with("74003"), [0u32; 0]);
    assert!(groups(&instance).is_empty());
}

#[test]
fn memory_beyond_the_limit_is_not_had() {
    let Some(mut machine) = able(Machine::start(), &["memory"]) else {
        return;
    };
    let limit = (64u64 << 20).to_string();
    let limits = [("memory_bytes", limit.as_str())];
    // What has no line end is kept whole.
    let answer = run(
        &machine,
        &limits,
        "head -c 400000000 /dev/zero | tail -n 1 | wc -c",
    );
    assert_ne!(answer.text().lines().next(), Some("400000000"));
    let reached = format!("it reached its limit of {limit} bytes of memory");
    assert!(
        answer.text().contains(&format!("burrow: {reached}\n")),
        "{}",
        answer.text()
    );
    let answer = run(
        &machine,
        &limits,
        "head -c 400000000 /dev/zero | tail -n 1 | wc -c; exit 3",
    );
    assert!(
        answer.state().ends_with(&format!("({reached})")),
        "{}",
        answer.state()
    );
    let detail: Value = serde_json::from_str(answer.trailer("burrow-exec").unwrap()).unwrap();
    let peak = detail["memory_peak"].as_u64().unwrap();
    assert!((32 << 20..=64 << 20).contains(&peak), "{peak}");
    // Below it nothing is different, and the next has the whole again.
    for _ in 0..2 {
        let answer = run(
            &machine,
            &limits,
            "head -c 20000000 /dev/zero | tail -n 1 | wc -c",
        );
        assert_eq!((answer.text().as_str(), answer.state()), ("20000000\n", "ok"));
    }
    start(&mut machine, "limited", &limits, "echo > begun; exec sleep 74004");
    let pid = pids_with("74004")[0];
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = own
        .lines()
        .find(|line| line.contains("memory") || line.starts_with("0:"))
        .unwrap();
    let below = own.rsplit("burrow-").next().unwrap();
    let files = groups(&instance(&machine))
        .into_iter()
        .map(|dir| dir.parent().unwrap().join(format!("burrow-{below}")));
    let files = files.flat_map(|dir| [dir.join("memory.max"), dir.join("memory.limit_in_bytes")]);
    let said: Vec<String> = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
    assert_eq!(said, [format!("{limit}\n")], "{own}");
}

#[test]
fn ten_thousand_processes_are_not_had() {
    let Some(mut machine) = able(Machine::start(), &["processes"]) else {
        return;
    };
    // The shell inside gives up when it cannot start another.
    let script = "sh -c 'for i in $(seq 10000); do sleep 74005 & done'; echo > begun; exec sleep 74005";
    start(&mut machine, "many", &[("processes", "40")], script);
    let there = pids_with("74005").len();
    assert!((20..=40).contains(&there), "{there}");
    machine.request("DELETE", "/burrow/exec/many", "", b"");
    let answer = machine.get("/burrow/exec/many");
    assert!(
        answer.state().contains("it reached its limit of 40 processes"),
        "{}",
        answer.state()
    );
    assert_eq!(pids_with("74005"), [0u32; 0]);
    assert_eq!(
        run(&machine, &[("processes", "40")], "sleep 0.01 & wait; echo fine").text(),
        "fine\n"
    );
}

#[test]
fn without_a_network_a_command_reaches_itself_alone() {
    let Some(mut machine) = able(Machine::start(), &["network"]) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached");
    assert_eq!(run(&machine, &[], &script).text(), "reached\n");
    let off = [("network", "off")];
    let answer = run(&machine, &off, &script);
    // Refused, not unreachable: it has a loopback of its own.
    assert!(answer.text().contains("Connection refused"), "{}", answer.text());
    let answer = run(&machine, &off, "exec 3<>/dev/tcp/192.0.2.1/80");
    assert!(answer.text().contains("unreachable"), "{}", answer.text());
    start(&mut machine, "off", &off, "echo > begun; exec sleep 74006");
    let net = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(net(&pids_with("74006")[0].to_string()), net("self"));
}

/// Every way out that a command may try; each line of its output is one that worked.
fn ways_out(machine: &Machine) -> String {
    let outside = machine.outside("");
    let agent = machine.child.id();
    let out = outside.display();
    format!(
        "exec 2>/dev/null; ln -s {out} link; mkdir own; echo mine > own/file
         echo x > {out}/new && echo new
         echo x > {out}/kept && echo overwritten
         echo x >> {out}/kept && echo appended
         truncate -s 0 {out}/kept && echo cut
         rm {out}/kept && echo removed
         mkdir {out}/folder && echo folder
         mv own/file {out}/moved && echo moved
         mv {out}/kept taken && echo taken
         ln {out}/kept linked && echo linked
         echo x > link/new && echo 'by a link'
         mknod {out}/pipe p && echo pipe
         mknod own/disk b 253 0 && echo x > own/disk && echo disk
         mount -t tmpfs none own && echo mounted
         unshare -m mount -t tmpfs none {out} && echo 'mounted aside'
         nsenter -t {agent} -m true && echo entered
         echo x > /proc/{agent}/cwd/x && echo 'by the agent'
         dd if=/proc/{agent}/mem bs=1 count=0 && echo x > /proc/{agent}/mem && echo memory
         kill -9 {agent} && echo killed
         cat {out}/kept > own/read && test \"$(cat own/read)\" = content || echo unread
         echo x > /dev/null || echo nulled
         true"
    )
}

fn stays_inside(machine: &Machine, limits: &[(&str, &str)]) {
    fs::write(machine.outside("kept"), "content").unwrap();
    let script = ways_out(machine);
    let answer = run(machine, limits, &script);
    assert_eq!((answer.text().as_str(), answer.state()), ("", "ok"));
    let names: Vec<_> = fs::read_dir(machine.outside(""))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["kept"]);
    assert_eq!(fs::read_to_string(machine.outside("kept")).unwrap(), "content");
    assert_eq!(fs::read_to_string(machine.work("own/file")).unwrap(), "mine\n");
    // It is this that keeps them in, and not the ways themselves.
    machine.post("/removeall", &[("path", ".")]);
    assert_eq!(machine.get("/status").status, 200);
}

#[test]
fn a_confined_command_writes_below_the_working_directory_alone() {
    let Some(machine) = able(Machine::start(), &["write"]) else {
        return;
    };
    stays_inside(&machine, &[("write", "workdir")]);
    // Without it the same ways lead out; those that would end this machine are left out.
    let out = machine.outside("").display().to_string();
    let open = run(
        &machine,
        &[],
        &format!("echo x > {out}/new && echo new; ln -s {out} link; echo x > link/by && echo by"),
    );
    assert_eq!(open.text(), "new\nby\n");
}

#[test]
fn what_the_flags_say_holds_for_whoever_asks_for_less() {
    let flags = ["-confine", "-no-network", "-max-wall=1s", "-max-output=1000000"];
    let Some(machine) = able(Machine::with(&flags, &[]), &["write", "network"]) else {
        return;
    };
    stays_inside(&machine, &[]);
    let answer = run(&machine, &[], "exec 3<>/dev/tcp/192.0.2.1/80");
    assert!(answer.text().contains("unreachable"), "{}", answer.text());
    let answer = run(&machine, &[("wall_s", "1000")], "exec sleep 74007");
    assert_eq!(answer.state(), "signal: killed (it ran for more than 1 s)");
    let answer = run(&machine, &[("output_bytes", "5000000")], "yes");
    assert_eq!(
        answer.state(),
        "signal: killed (it printed more than 1000000 bytes)"
    );
    let answer = run(&machine, &[("output_bytes", "1000")], "yes");
    assert_eq!(answer.state(), "signal: killed (it printed more than 1000 bytes)");
}

#[test]
fn limits_that_are_none_are_refused() {
    let machine = Machine::start();
    let answer = run(&machine, &[("memory_bytes", "4G")], "true");
    let wanted = "400 invalid 'memory_bytes' parameter: `4G`; wanted a number of bytes, 1 or more";
    assert_eq!(answer.shown(), wanted);
}

/// A folder that everybody may pass through, with this program in it.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn commands_of_another_user_have_the_files_and_not_the_machine() {
    if !is_root() {
        let why = "only root runs commands as somebody else";
        assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
        return eprintln!("skipped: {why}");
    }
    let folder = open_folder();
    let work = folder.path().join("work");
    let secret = folder.path().join("secret");
    fs::write(&secret, "pw").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let workdir = format!("-workdir={}", work.display());
    let machine = Machine::with(&["-build-user=nobody", &workdir], &[]);
    let who = run(
        &machine,
        &[],
        "id -u; id -g; id -G; echo $USER; echo > made; cat ../secret",
    );
    let lines: Vec<String> = who.text().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], NOBODY.to_string());
    assert!(!lines[2].split(' ').any(|group| group == "0"), "{lines:?}");
    assert_eq!(lines[3], "nobody");
    assert!(lines[4].contains("Permission denied"), "{lines:?}");
    let owner = |path: &str| fs::symlink_metadata(work.join(path)).unwrap().uid();
    assert_eq!(owner("made"), NOBODY);
    // What is sent is theirs to change.
    assert_eq!(
        machine.put("/write?path=sent/file&mode=420", b"x").shown(),
        "200 OK"
    );
    assert_eq!((owner("sent"), owner("sent/file")), (NOBODY, NOBODY));
    assert_eq!(
        run(
            &machine,
            &[],
            "echo y >> sent/file; chmod 0 sent/file; mkdir -p ro/x; chmod 500 ro"
        )
        .state(),
        "ok"
    );
    // Of many at once as well, on whichever thread.
    let many: Vec<Vec<u8>> = (0..300).map(|n| file(&format!("many/{n}"), b"x")).collect();
    assert_eq!(machine.put("/writetgz?dir=tar", &tgz(&many)).shown(), "200 OK");
    let theirs = (0..300).filter(|n| owner(&format!("tar/many/{n}")) == NOBODY);
    assert_eq!(theirs.count(), 300);
    assert!(machine.get("/tgz?dir=tar").whole);
    // And what this program may and they may not is not done for them.
    assert_eq!(run(&machine, &[], "cat sent/file").state(), "exit status 1");
    let answer = machine.get("/ls?digest=true&recursive=true");
    assert!(
        answer.shown().contains("ermission denied") || !answer.whole,
        "{}",
        answer.shown()
    );
    assert_eq!(machine.post("/removeall", &[("path", ".")]).shown(), "200 ");
    assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
    // Gone, the working directory is made anew, and theirs.
    fs::remove_dir(&work).unwrap();
    assert_eq!(run(&machine, &[], "echo > made").state(), "ok");
    assert_eq!((owner(""), owner("tmp"), owner("made")), (NOBODY, NOBODY, NOBODY));
    // They cannot end it, nor read what others printed.
    let agent = machine.child.id();
    let spools = machine.folder.path().join("state/execs");
    let tried = run(
        &machine,
        &[],
        &format!("kill -9 {agent}; ls {}", spools.display()),
    );
    assert_eq!(tried.text().matches("ermi").count(), 2, "{}", tried.text());
    assert_eq!(machine.get("/status").status, 200);
}

#[test]
fn a_machine_without_rights_does_what_it_can_and_refuses_the_rest() {
    if !is_root() {
        let why = "only root starts a machine without its rights";
        assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
        return eprintln!("skipped: {why}");
    }
    let folder = open_folder();
    let program = folder.path().join("buildlet");
    fs::copy(env!("CARGO_BIN_EXE_buildlet"), &program).unwrap();
    let own = folder.path().join("own");
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let as_nobody = |flags: &[&str]| {
        let mut command = Command::new(&program);
        command
            .arg("-listen=127.0.0.1:0")
            .arg(format!("-state-dir={}", own.join("state").display()));
        command.args(flags).uid(NOBODY).gid(NOBODY).stderr(Stdio::piped());
        command
    };
    // What is asked for and cannot be had is an error at once.
    for (flag, what) in [
        ("-max-memory=1000000", "limit memory"),
        ("-max-processes=5", "limit processes"),
        ("-build-user=root", "run commands as `root`"),
        ("-block-metadata", "block the metadata address"),
    ] {
        let out = as_nobody(&[flag]).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{flag}: {text}");
        assert!(
            text.contains(&format!("this machine cannot {what}: ")),
            "{flag}: {text}"
        );
    }
    let report = own.join("report");
    let child = as_nobody(&[&format!("-report-file={}", report.display())])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut machine = Machine {
        child,
        folder: tempfile::tempdir().unwrap(),
        address: String::new(),
    };
    machine.until("it listens", |_| report.exists());
    let said: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    machine.address = said["address"].as_str().unwrap().to_owned();
    let answer = run(&machine, &[("memory_bytes", "1000000")], "true");
    assert!(
        answer
            .shown()
            .starts_with("501 this machine cannot limit memory: "),
        "{}",
        answer.shown()
    );
    let Some(machine) = able(machine, &["network", "write"]) else {
        return;
    };
    let limits = [("network", "off"), ("write", "workdir")];
    let script = format!(
        "id -u; exec 2>&1; echo x > {}/x; echo y > y && cat y; exec 3<>/dev/tcp/192.0.2.1/80",
        own.display()
    );
    let answer = run(&machine, &limits, &script);
    let text = answer.text();
    assert!(
        text.starts_with("65534\n") && text.contains("Permission denied") && text.contains("\ny\n"),
        "{text}"
    );
    assert!(text.contains("unreachable"), "{text}");
    assert!(!own.join("x").exists());
}

/// Does something in the network of a process.
fn in_network_of<T: Send>(pid: u32, act: impl FnOnce() -> T + Send) -> T {
    let network = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    std::thread::scope(|scope| {
        let there = scope.spawn(move || {
            use std::os::fd::AsFd;
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(network.as_fd(), kind).unwrap();
            act()
        });
        there.join().unwrap()
    })
}

#[test]
fn the_clouds_secrets_are_out_of_reach_and_its_names_are_not() {
    if !is_root() || !Path::new("/sbin/ip").exists() {
        let why = "a network with the address is made by root with `ip`";
        assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
        return eprintln!("skipped: {why}");
    }
    for (flag, reached) in [("-block-metadata", false), ("-block-metadata=false", true)] {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report");
        let script = format!(
            "ip link set lo up && ip addr add 169.254.169.254/32 dev lo && exec {} -listen=127.0.0.1:0 {flag} \
             -state-dir={} -report-file={}",
            env!("CARGO_BIN_EXE_buildlet"),
            folder.path().join("state").display(),
            report.display()
        );
        let child = Command::new("unshare")
            .args(["-n", "sh", "-c", &script])
            .spawn()
            .unwrap();
        let pid = child.id();
        let mut machine = Machine {
            child,
            folder,
            address: String::new(),
        };
        machine.until("it listens", |_| report.exists());
        let said: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        machine.address = said["address"].as_str().unwrap().to_owned();
        let answers = in_network_of(pid, || {
            let serve = |port: u16| {
                let listener = TcpListener::bind(("169.254.169.254", port)).unwrap();
                std::thread::spawn(move || {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.write_all(b"secret\n").unwrap();
                    // Until it has been read.
                    let _ = stream.read(&mut [0]);
                });
            };
            serve(80);
            serve(53);
            let ask = |port: u16| {
                let script = format!("exec 3<>/dev/tcp/169.254.169.254/{port} && head -n 1 <&3");
                run(&machine, &[("wall_s", "3")], &script).text()
            };
            (ask(80), ask(53))
        });
        assert_eq!(answers.0 == "secret\n", reached, "{flag}: {answers:?}");
        assert_eq!(answers.1, "secret\n", "{flag}");
    }
}
