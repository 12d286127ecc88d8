//! Machines lent to people: Go's own gomote against our coordinator, at the fixed address where it looks for one.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use testkit::peer::{Era, coordinators_port, go_program};

use crate::peers::{Farm, Supervised, commit, git, runs, wait_for};
use crate::{burrow, until};

#[test]
fn gos_gomote_of_2019_uses_our_machines() {
    uses_a_machine(Era::Seed, None);
}

#[test]
fn gos_gomote_of_2021_uses_our_machines() {
    uses_a_machine(Era::Mature, None);
}

#[test]
fn gos_gomote_of_2021_uses_gos_machines_through_our_coordinator() {
    uses_a_machine(Era::Mature, Some("127.77.30.1:443"));
}

/// Every command of `gomote` on one of our local machines, or on one of Go's that dials in to `door`.
fn uses_a_machine(era: Era, door: Option<&str>) {
    let Some(gomote) = go_program("gomote", era) else {
        return;
    };
    let _alone = coordinators_port();
    let folder = tempfile::tempdir().expect("a folder");
    let farm = Farm::serve(folder.path(), &farm_toml(folder.path(), door));
    let _machine = door.map(|door| {
        let program = go_program("buildlet", Era::Latest).expect("there is a Go toolchain");
        forward(door);
        Supervised::start(&program, folder.path(), door)
    });
    // What waits for machines by right of its commit has had its turn.
    wait_for(&farm, 1, "passed");
    let amy = Person::new(&gomote, folder.path(), "amy", &key_of(&farm, "user-amy"));
    let eve = Person::new(&gomote, folder.path(), "eve", "0123456789abcdef0123456789abcdef");

    assert!(
        amy.fails(&["create", "plan9-amd64"])
            .contains("unknown builder type")
    );
    assert!(
        eve.fails(&["create", "linux-amd64"])
            .contains("bad username or password")
    );
    let name = amy.says(&["create", "linux-amd64"]);
    let name = name.trim();
    assert_eq!(name, "user-amy-linux-amd64-0");
    let listed = amy.says(&["list"]);
    assert!(
        listed.starts_with("user-amy-linux-amd64-0\tlinux-amd64\track\texpires in 2"),
        "{listed}"
    );
    amy.says(&["ping", name]);

    // Commands: output, exit code, arguments, environment, what was put there.
    let system = amy.says(&["run", "-system", name, "/bin/sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(system, "out\nerr\n");
    let failed = amy.run(&["run", "-system", name, "/bin/sh", "-c", "echo so; exit 3"]);
    assert_eq!(String::from_utf8_lossy(&failed.stdout), "so\n");
    let why = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && why.contains("exit status 3"), "{why}");
    let script = folder.path().join("hello.sh");
    fs::write(&script, "#!/bin/sh\necho \"hello $1 from $WHO\"\n").expect("a file");
    amy.says(&["put", "-mode", "755", name, path(&script), "tools/hello"]);
    let hello = amy.says(&["run", "-e", "WHO=afar", name, "tools/hello", "world"]);
    assert_eq!(hello, "hello world from afar\n");
    // More than any buffer on the way, in order.
    let many = amy.says(&["run", "-system", name, "/usr/bin/seq", "200000"]);
    assert_eq!(many.lines().count(), 200_000);
    assert!(many.ends_with("\n200000\n"));

    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("sub")).expect("a folder");
    fs::write(tree.join("sub/file"), vec![b'x'; 3 << 20]).expect("a file");
    let tar = folder.path().join("tree.tar.gz");
    assert!(tar_of(&tree, &tar).success());
    amy.says(&["puttar", "-dir", "unpacked", name, path(&tar)]);
    let size = amy.says(&["run", "-system", name, "/usr/bin/wc", "-c", "unpacked/sub/file"]);
    assert_eq!(size.split(' ').next(), Some("3145728"), "{size}");
    reads_back(&amy, name, folder.path());
    amy.says(&["rm", name, "tools"]);
    let gone = amy.fails(&["run", name, "tools/hello"]);
    assert!(gone.contains("no such file"), "{gone}");

    // Giving it back ends what runs there, and nobody finds what was there.
    let sleeper = format!("1000.{}", std::process::id());
    let mut long = amy.command(&["run", "-system", name, "/bin/sleep", &sleeper]);
    let mut long = long
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gomote starts");
    until("the long command runs", || runs_there(&sleeper).then_some(()));
    amy.says(&["destroy", name]);
    until("its command has ended", || (!runs_there(&sleeper)).then_some(()));
    assert!(!long.wait().expect("it can be waited for").success());
    assert_eq!(amy.says(&["list"]), "");
    assert!(amy.fails(&["ping", name]).contains("unknown"));
    let next = amy.says(&["create", "linux-amd64"]);
    assert_eq!(next.trim(), name, "its number is free again");
    let left = amy.says(&["run", "-system", name, "/bin/ls"]);
    assert!(!left.contains("unpacked") && !left.contains("go1.4"), "{left}");

    a_restart_is_survived_where_it_can_be(farm, folder.path(), &amy, name, door);
}

#[test]
fn our_own_gomote_uses_our_machines() {
    ours_uses_a_machine(None);
}

#[test]
fn our_own_gomote_uses_gos_machines() {
    ours_uses_a_machine(Some("127.77.31.1:443"));
}

/// Every command of `burrow gomote`, on one of our machines or on one of Go's.
fn ours_uses_a_machine(door: Option<&str>) {
    let program = match door {
        None => None,
        Some(_) => match go_program("buildlet", Era::Latest) {
            None => return,
            program => program,
        },
    };
    let folder = tempfile::tempdir().expect("a folder");
    let toml = farm_toml(folder.path(), door).replace("127.0.0.1:8119", door.unwrap_or("127.0.0.1:0"));
    let farm = Farm::serve(folder.path(), &toml);
    let machine_process = door
        .zip(program)
        .map(|(door, program)| Supervised::start(&program, folder.path(), door));
    let (machine, software) = match door {
        None => ("rack-1", "burrow"),
        Some(_) => ("gopher", "Go's buildlet"),
    };
    wait_for(&farm, 1, "passed");
    let (amy, bob, eve) = (
        token_of(&farm, "amy", "contributor"),
        token_of(&farm, "bob", "contributor"),
        token_of(&farm, "eve", "reader"),
    );
    let run = |token: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_burrow"));
        command
            .arg("--state-dir")
            .arg(&farm.state)
            .arg("gomote")
            .args(args)
            .env("BURROW_TOKEN", token)
            .env_remove("BURROW_SERVER")
            .current_dir(folder.path().join("widget"));
        let out = command.output().expect("burrow runs");
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let says = |args: &[&str]| {
        let (code, out, err) = run(&amy, args);
        assert_eq!(code, Some(0), "{args:?}: {out}{err}");
        out
    };

    assert_eq!(says(&["create"]), "linux-amd64\n");
    let (code, _, why) = run(&eve, &["create", "linux"]);
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("this token only reads"), "{why}");
    assert!(run(&amy, &["run", "true"]).2.contains("you have no machine"));
    assert_eq!(says(&["create", "linux"]), "user-amy-linux-amd64-0\n");
    let listed = says(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed[0]["Name"], "user-amy-linux-amd64-0");
    assert_eq!(listed[0]["Machine"], machine);
    let ping = says(&["ping"]);
    assert!(
        ping.contains(&format!("answers: {software}")),
        "the only one is meant: {ping}"
    );
    assert_eq!(run(&bob, &["list", "--json"]).1, "[]\n");

    // Exit codes and output are the command's.
    assert_eq!(run(&amy, &["run", "sh", "-c", "echo so; exit 3"]).0, Some(3));
    assert_eq!(run(&amy, &["run", "sh", "-c", "kill -9 $$"]).0, Some(137));
    let (code, _, why) = run(&amy, &["run", "no-such-program"]);
    assert_eq!(code, Some(125), "{why}");
    let named = [
        "run",
        "-e",
        "A=b",
        "user-amy-linux-amd64-0",
        "sh",
        "-c",
        "echo $A; echo e >&2",
    ];
    assert_eq!(says(&named), "b\ne\n");

    // Files: one by one, by archive, and as the work tree stands.
    let script = folder.path().join("hello.sh");
    fs::write(&script, "#!/bin/sh\necho \"hello $1\"\n").expect("a file");
    says(&["put", "--mode", "755", path(&script), "tools/hello"]);
    assert_eq!(says(&["run", "tools/hello", "--world"]), "hello --world\n");
    let tar = folder.path().join("widget.tar.gz");
    assert!(tar_of(&folder.path().join("widget"), &tar).success());
    says(&["puttar", "--dir", "unpacked", "linux-amd64-0", path(&tar)]);
    assert_eq!(says(&["run", "cat", "unpacked/step.sh"]), "true\n");
    let tree = folder.path().join("widget");
    fs::write(tree.join("new.txt"), "new").expect("a file");
    fs::write(tree.join(".gitignore"), "ignored\n").expect("a file");
    fs::write(tree.join("ignored"), "").expect("a file");
    fs::write(tree.join("step.sh"), "changed").expect("a file");
    let dry = run(&amy, &["push", "--dry-run"]).2;
    assert!(dry.contains("+ new.txt") && dry.contains("+ step.sh"), "{dry}");
    says(&["push"]);
    assert_eq!(
        says(&["run", "--dir", "src", "sh", "-c", "ls; cat step.sh new.txt"]),
        "new.txt\nstep.sh\nchangednew"
    );
    // What the machine can read back.
    let (code, listed, why) = run(&amy, &["ls", "-R", "--digest", "--json", "src"]);
    assert_eq!(code, Some(0), "{why}");
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let entries = listed.as_array().expect("a list");
    let new = entries
        .iter()
        .find(|entry| entry["path"] == "new.txt")
        .expect("it is there");
    assert_eq!((&new["size"], &new["mode"]), (&3.into(), &"-rw-r--r--".into()));
    assert_eq!(new["sha1"], "c2a6b03f190dfb2b4aa91f8af8d477a9bc3401dc");
    let got = folder.path().join("got.tar.gz");
    says(&["gettar", "--dir", "src", "-o", path(&got)]);
    let inside = Command::new("tar")
        .arg("-tzf")
        .arg(&got)
        .output()
        .expect("tar runs");
    assert!(text(&inside.stdout).contains("new.txt"));
    assert!(run(&amy, &["push"]).2.contains("0 of 3 files sent, 0 removed"));
    fs::write(tree.join("step.sh"), "again").expect("a file");
    fs::remove_file(tree.join("new.txt")).expect("it was there");
    says(&["run", "--dir", "src", "touch", "ignored"]);
    let again = run(&amy, &["push"]).2;
    assert!(again.contains("1 of 2 files sent, 1 removed"), "{again}");
    assert_eq!(
        says(&["run", "--dir", "src", "sh", "-c", "ls; cat step.sh"]),
        "ignored\nstep.sh\nagain"
    );
    says(&["rm", "tools", "unpacked"]);
    assert_eq!(run(&amy, &["run", "tools/hello"]).0, Some(125));

    says(&["destroy"]);
    assert_eq!(says(&["list", "--json"]), "[]\n");
    // Who asks for it by its name is told why it is no more.
    let (code, _, why) = run(&amy, &["ping", "user-amy-linux-amd64-0"]);
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("it ended at 20"), "{why}");
    assert!(
        run(&amy, &["ping", "user-amy-linux-amd64-7"])
            .2
            .contains("you have no machine")
    );
    let (_, page, _) = run(&bob, &["create", "linux-amd64", "--json"]);
    let lent: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!(lent["Name"], "user-bob-linux-amd64-0");
    let left = run(&bob, &["run", "ls"]).1;
    assert!(!left.contains("src"), "{left}");

    // A machine that dies takes its loan along, and says so.
    let Some(machine_process) = machine_process else {
        return;
    };
    drop(machine_process);
    let why = until("the loan has ended", || {
        let mut page = asked(&farm, "GET /gomotes.json HTTP/1.1", "");
        page.split_off(page.find("\r\n\r\n")?)
            .contains("\"lent\":[]")
            .then_some(())?;
        let head = format!(
            "GET /status HTTP/1.1\r\nAuthorization: Bearer {bob}\r\nX-Buildlet-Proxy: user-bob-linux-amd64-0"
        );
        Some(asked(&farm, &head, ""))
    });
    assert!(why.contains("its machine was lost: "), "{why}");
    assert!(why.contains("\"machine\":\"gopher\",\"since\":\"20"), "{why}");
}

#[test]
fn who_has_what_is_shown_and_refusals_have_reasons() {
    let folder = tempfile::tempdir().expect("a folder");
    let toml = farm_toml(folder.path(), None).replace("listen_https = \"127.0.0.1:8119\"\n", "");
    let farm = Farm::serve(folder.path(), &toml);
    wait_for(&farm, 1, "passed");
    let amy = format!("Authorization: Bearer {}", token_of(&farm, "amy", "contributor"));
    let bob = format!("Authorization: Bearer {}", token_of(&farm, "bob", "contributor"));
    let basic = format!(
        "Authorization: Basic {}",
        base64(&format!("user-amy:{}", &amy[22..]))
    );
    let create = |who: &str, version: &str, builder: &str| {
        let form = format!("version={version}&builderType={builder}");
        let head = format!(
            "POST /buildlet/create HTTP/1.1\r\n{who}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}",
            form.len()
        );
        (head, form)
    };
    let ask = |head: &str, body: &str| asked(&farm, head, body);
    let create_now = |who: &str, version: &str, builder: &str| {
        let (head, form) = create(who, version, builder);
        ask(&head, &form)
    };

    // The original's words.
    for (who, version, builder, status, words) in [
        (
            "X: y",
            "20191119",
            "linux-amd64",
            400,
            "missing required authentication",
        ),
        (
            "Authorization: Basic dXNlci1hbXk6a2V5",
            "20191119",
            "linux-amd64",
            401,
            "bad username or password",
        ),
        (
            "Authorization: Bearer bt_x",
            "20191119",
            "linux-amd64",
            401,
            "bad username or password",
        ),
        (amy.as_str(), "20150101", "linux-amd64", 400, "is too old"),
        (
            amy.as_str(),
            "20191119",
            "",
            400,
            "missing 'builderType' parameter",
        ),
        (
            amy.as_str(),
            "20191119",
            "plan9",
            400,
            "unknown builder type in 'builderType' parameter",
        ),
    ] {
        let answer = create_now(who, version, builder);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(words), "{words}: {answer}");
    }
    let wrong_method = ask(&format!("GET /buildlet/create HTTP/1.1\r\n{amy}"), "");
    assert!(wrong_method.ends_with("POST required\n"), "{wrong_method}");

    // The first version answers once, with the machine; a token by Basic is as good.
    let lent = create_now(&basic, "20160922", "linux-amd64");
    assert!(lent.contains("\"Name\": \"user-amy-linux-amd64-0\""), "{lent}");
    let proxied = |who: &str, name: &str, what: &str| {
        ask(
            &format!("{what} HTTP/1.1\r\n{who}\r\nX-Buildlet-Proxy: {name}"),
            "",
        )
    };
    let name = "user-amy-linux-amd64-0";
    assert!(proxied(&amy, name, "GET /status").contains("\"Version\":"));
    assert!(proxied(&bob, name, "GET /status").ends_with("you don't own that buildlet\n"));
    let unknown = proxied(&amy, "user-amy-linux-amd64-7", "GET /status");
    assert!(unknown.starts_with("HTTP/1.1 502 ") && unknown.ends_with("unknown or expired buildlet\n"));
    assert!(
        unknown.contains("Burrow-Error: {\"hop\":\"coordinator\"}"),
        "{unknown}"
    );

    // On a connection that carried something else it is refused: its head has not been looked at there.
    let second = format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /status HTTP/1.1\r\nX-Buildlet-Proxy: {name}"
    );
    assert!(ask(&second, "").contains("HTTP/1.1 421 "));

    // Bob waits, is told why, and everyone sees it; he hangs up, and waits no more.
    let (head, form) = create(&bob, "20191119", "linux-amd64");
    let mut waiting = connected(&farm);
    write!(waiting, "{head}\r\nHost: localhost\r\n\r\n{form}").expect("it is written");
    let page = until("somebody waits", || {
        let page = ask("GET /gomotes.json HTTP/1.1", "");
        page.contains("\"owner\":\"user-bob\"").then_some(page)
    });
    assert!(page.contains("all 1 machines of type rack are at work"), "{page}");
    assert!(page.contains("\"name\":\"user-amy-linux-amd64-0\""), "{page}");
    let mut told = String::new();
    while !told.contains("0 before you") {
        let mut piece = [0; 4096];
        let count = std::io::Read::read(&mut waiting, &mut piece).expect("it can be read");
        assert!(count > 0, "{told}");
        told.push_str(&text(&piece[..count]));
    }
    assert!(told.contains("X-Supported-Version: 20191119") || told.contains("x-supported-version: 20191119"));
    drop(waiting);
    until("nobody waits", || {
        let page = ask("GET /gomotes.json HTTP/1.1", "");
        page.contains("\"waiting\":[]").then_some(())
    });

    // Whoever may end it has a button, and nobody else.
    let html = |who: &str| {
        ask(
            &format!("GET /gomotes HTTP/1.1\r\nAccept: text/html\r\n{who}"),
            "",
        )
    };
    assert!(html(&amy).contains("End it") && !html(&bob).contains("End it"));
    let end = |who: &str| {
        let head = format!("POST /gomotes/{name}/destroy HTTP/1.1\r\nAccept: application/json\r\n{who}");
        ask(&format!("{head}\r\nContent-Length: 0"), "")
    };
    assert!(end(&bob).starts_with("HTTP/1.1 403 "));
    assert!(end(&amy).starts_with("HTTP/1.1 200 "));
    let ended = until("it has ended", || {
        let answer = proxied(&amy, name, "GET /status");
        answer.starts_with("HTTP/1.1 502 ").then_some(answer)
    });
    assert!(
        ended.contains("unknown or expired buildlet: it ended at 20") && ended.contains("given back by amy"),
        "{ended}"
    );
    assert!(ended.contains("\"machine\":\"rack-1\""), "{ended}");
}

fn token_of(farm: &Farm, name: &str, role: &str) -> String {
    let made = burrow(&farm.state, &["token", "new", name, "--role", role, "--json"]);
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    made["token"].as_str().expect("the token, this once").to_owned()
}

fn connected(farm: &Farm) -> TcpStream {
    let told = fs::read(farm.state.join("server.json")).expect("the farm is up");
    let told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
    let url = told["url"].as_str().expect("an address");
    TcpStream::connect(url.trim_start_matches("http://").trim_end_matches('/')).expect("it listens")
}

/// The whole answer to one request.
fn asked(farm: &Farm, head: &str, body: &str) -> String {
    let mut stream = connected(farm);
    write!(
        stream,
        "{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("it is written");
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).expect("it can be read");
    text(&answer)
}

fn base64(text: &str) -> String {
    let mut child = Command::new("base64")
        .arg("-w0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("base64 runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).expect("it is read");
    drop(stdin);
    let out = child.wait_with_output().expect("base64 runs");
    String::from_utf8(out.stdout).expect("text")
}

/// `ls`, `gettar`, `push`.
fn reads_back(amy: &Person, name: &str, folder: &Path) {
    let listed = amy.run(&["ls", "-R", name, "unpacked"]);
    let why = String::from_utf8_lossy(&listed.stderr).into_owned();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("sub/file\t3145728\t"), "{listed} {why}");
    let got = amy.run(&["gettar", "-dir", "unpacked", name]);
    assert!(got.status.success());
    let file = folder.join("got.tar.gz");
    fs::write(&file, &got.stdout).expect("a file");
    let inside = Command::new("tar")
        .arg("-tzf")
        .arg(&file)
        .output()
        .expect("tar runs");
    assert!(String::from_utf8_lossy(&inside.stdout).contains("sub/file"));

    // What `push` takes for Go's bootstrap toolchain is there, or it would fetch one.
    let marker = folder.join("marker");
    fs::write(&marker, "").expect("a file");
    amy.says(&["put", name, path(&marker), "go1.4/marker"]);
    let goroot = folder.join("goroot");
    fs::create_dir(&goroot).expect("a folder");
    git(&goroot, &["init", "-q", "-b", "main"]);
    commit(&goroot, "first", "true");
    fs::write(goroot.join("changed.go"), "package changed\n").expect("a file");
    let mut push = amy.command(&["push", name]);
    let pushed = push
        .env("GOROOT", &goroot)
        .current_dir(&goroot)
        .output()
        .expect("gomote runs");
    assert!(
        pushed.status.success(),
        "{}",
        String::from_utf8_lossy(&pushed.stderr)
    );
    let found = amy.says(&["run", "-system", name, "/bin/cat", "go/changed.go", "go/VERSION"]);
    assert_eq!(found, "package changed\ndevel gomote.XXXXX");
}

/// A burrow machine stays lent over a killed coordinator, with what is on it; Go's end with their connection.
fn a_restart_is_survived_where_it_can_be(
    farm: Farm,
    folder: &Path,
    amy: &Person,
    name: &str,
    door: Option<&str>,
) {
    amy.says(&["put", name, path(&folder.join("hello.sh")), "kept"]);
    drop(farm);
    let farm = Farm::serve(folder, &farm_toml(folder, door));
    let found = until("the coordinator tells what became of the machine", || {
        let out = amy.run(&["run", "-system", name, "/bin/cat", "kept"]);
        let (said, why) = (text(&out.stdout), text(&out.stderr));
        if why.contains("out of reach") {
            return None;
        }
        Some((out.status.success(), said, why))
    });
    match door {
        None => assert!(found.0 && found.1.contains("hello"), "{found:?}"),
        // As the request came before the machine or after it.
        Some(_) => assert!(
            ["unknown builder", "its machine came back without what was on it"]
                .iter()
                .any(|words| found.2.contains(words)),
            "{found:?}"
        ),
    }
    drop(farm);
}

fn farm_toml(folder: &Path, door: Option<&str>) -> String {
    let repo = folder.join("widget");
    if !repo.exists() {
        fs::create_dir(&repo).expect("a folder");
        git(&repo, &["init", "-q", "-b", "main"]);
        commit(&repo, "good", "true");
    }
    let pool = match door {
        None => "pool = \"local\"\nslots = 1",
        Some(_) => "pool = \"reverse\"\nexpect = 1\naccept_development_keys = true",
    };
    format!(
        r#"
[farm]
listen = "127.0.0.1:0"
listen_https = "127.0.0.1:8119"
[repo.widget]
url = "{}"
poll = "1s"
[host.rack]
{pool}
[builder.linux-amd64]
host = "rack"
[recipe.widget]
steps = [{{ name = "script", run = ["sh", "step.sh"] }}]
"#,
        repo.display()
    )
}

/// Somebody with a home folder and a token in it.
struct Person {
    gomote: PathBuf,
    home: PathBuf,
    user: &'static str,
}

impl Person {
    fn new(gomote: &Path, folder: &Path, user: &'static str, key: &str) -> Person {
        let home = folder.join(user);
        let config = home.join(".config/gomote");
        fs::create_dir_all(&config).expect("a folder");
        fs::write(config.join(format!("user-{user}.token")), key).expect("a file");
        Person {
            gomote: gomote.to_owned(),
            home,
            user,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.gomote);
        command
            .args(["-localdev", &format!("-user={}", self.user)])
            .args(args)
            .env("HOME", &self.home)
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("gomote runs")
    }

    #[track_caller]
    fn says(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "gomote {args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(!out.status.success(), "gomote {args:?}: {}", text(&out.stdout));
        text(&out.stderr)
    }
}

fn key_of(farm: &Farm, name: &str) -> String {
    let master = farm.state.join("master-key");
    let out = burrow(
        &farm.state,
        &["key", "derive", "--master-key", path(&master), name],
    );
    let said = text(&out.stdout);
    said.split(' ').next().expect("a key").to_owned()
}

/// Whether the command itself runs, not only a gomote that asked for it.
fn runs_there(argument: &str) -> bool {
    runs(&format!("/bin/sleep\0{argument}"))
        && fs::read_dir("/proc")
            .expect("/proc is there")
            .flatten()
            .any(|entry| {
                fs::read(entry.path().join("cmdline"))
                    .is_ok_and(|line| line == format!("/bin/sleep\0{argument}\0").as_bytes())
            })
}

/// What comes in at `door` goes on to the coordinator's one TLS address: Go's buildlets must dial port 443.
fn forward(door: &str) {
    let listener = TcpListener::bind(door).expect("the address is free");
    std::thread::spawn(move || {
        for inside in listener.incoming().flatten() {
            let Ok(outside) = TcpStream::connect("127.0.0.1:8119") else {
                continue;
            };
            for (mut from, mut to) in [
                (
                    inside.try_clone().expect("a handle"),
                    outside.try_clone().expect("a handle"),
                ),
                (outside, inside),
            ] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.flush();
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
}

fn tar_of(tree: &Path, file: &Path) -> std::process::ExitStatus {
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(file).arg("-C").arg(tree).arg(".");
    tar.status().expect("tar runs")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
