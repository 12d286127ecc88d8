//! What people and repositories do wrong, and what the farm says to it.

use std::fs;
use std::path::Path;

use crate::farm::{Process, git, git_with, refused, repository};
use crate::until;

/// Repositories and what each one's only step runs.
const STEPS: [(&str, &str); 14] = [
    ("empty", "true"),
    ("late", "true"),
    ("leaving", "true"),
    ("typo", "true"),
    ("secret", "true"),
    ("no-command", "[\"no-such-program\", \"x\"]"),
    ("signal", "kill -SEGV $$"),
    ("silent", "true"),
    ("bytes", r"printf 'a\\377\\376\\033[2J</pre>z\\n'"),
    ("odd-ref", "true"),
    ("odd-commit", "true"),
    ("submodule", "cat own && test ! -e other/file"),
    ("links", "true"),
    ("case-clash", "cat README readme"),
];

const PASSWORD: &str = "pa55-never-shown";

fn config(dir: &Path) -> String {
    let mut text =
        "[farm]\nname = \"bad\"\nlisten = \"127.0.0.1:0\"\n[host.local]\npool = \"local\"\nslots = 2\n\
                    [builder.local]\nhost = \"local\"\n"
            .to_owned();
    for (name, run) in STEPS {
        let (url, branches) = match name {
            // Nobody listens there.
            "secret" => (format!("http://amy:{PASSWORD}@127.0.0.1:9/w"), ""),
            "typo" => (dir.join(name).display().to_string(), "branches = [\"mian\"]\n"),
            "odd-ref" => (dir.join(name).display().to_string(), "branches = [\"*\"]\n"),
            _ => (dir.join(name).display().to_string(), ""),
        };
        let run = if run.starts_with('[') {
            run.to_owned()
        } else {
            format!("\"{run}\"")
        };
        text += &format!(
            "[repo.{name}]\nurl = {url:?}\n{branches}recipe = \"{name}\"\npoll = \"1s\"\n\
             [recipe.{name}]\nsteps = [{{ name = \"test\", run = {run} }}]\n"
        );
    }
    text
}

/// All but the one that comes late.
fn repositories(dir: &Path) {
    for (name, _) in STEPS {
        match name {
            "empty" => {
                fs::create_dir(dir.join(name)).expect("a folder");
                git(&dir.join(name), &["init", "-q"]);
            }
            "late" | "secret" => {}
            _ => repository(&dir.join(name), &[("own", "text\n")]),
        }
    }
    let at = |name: &str| dir.join(name);
    git(
        &at("odd-ref"),
        &["update-ref", "refs/heads/--upload-pack=x", "HEAD"],
    );

    let tree = git(&at("odd-commit"), &["rev-parse", "HEAD^{tree}"]);
    let mut odd = format!("tree {tree}\nauthor Z").into_bytes();
    odd.extend(
        b"o\xeb <zo\xeb@example.org> 1000000000 +0000\ncommitter Z <z@example.org> 1000000000 +0000\n",
    );
    odd.extend(b"\n<b>caf\xe9</b> \xff\x1b[2J\n");
    let odd = git_with(
        &at("odd-commit"),
        &["hash-object", "-t", "commit", "-w", "--stdin"],
        &odd,
    );
    git(&at("odd-commit"), &["update-ref", "refs/heads/main", &odd]);

    // A submodule whose commit exists nowhere.
    let link = format!("160000,{},other", "1".repeat(40));
    git(&at("submodule"), &["update-index", "--add", "--cacheinfo", &link]);
    git(&at("submodule"), &["commit", "-q", "--amend", "-m", "broken"]);

    std::os::unix::fs::symlink("../../../../../../nowhere/outside", at("links").join("out")).expect("a link");
    git(&at("links"), &["add", "-A"]);
    git(
        &at("links"),
        &["commit", "-q", "--amend", "-m", "a link out of the tree"],
    );

    for name in ["README", "readme"] {
        fs::write(at("case-clash").join(name), name).expect("a file");
        git(&at("case-clash"), &["add", name]);
    }
    git(&at("case-clash"), &["commit", "-q", "--amend", "-m", "both"]);
}

fn reason(build: &serde_json::Value) -> (&str, &str) {
    (
        build["status"].as_str().unwrap_or_default(),
        build["reason"].as_str().unwrap_or_default(),
    )
}

#[test]
fn each_thing_that_is_wrong_is_told_and_nothing_else_suffers() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    repositories(dir);
    let file = dir.join("burrow.toml");
    fs::write(&file, config(dir)).expect("a file");
    let farm = Process::start(dir, dir, &["serve", "--config", "burrow.toml", "-v"]);

    // Commands that end otherwise than well.
    let build = farm.done("no-command");
    let (status, why) = reason(&build);
    assert!(status == "failed" && why.contains("no-such-program"), "{build}");
    let build = farm.done("signal");
    let (status, why) = reason(&build);
    assert!(
        status == "failed" && why.contains("segmentation fault"),
        "{build}"
    );

    // Output that is none, or no text.
    let build = farm.done("silent");
    assert_eq!((reason(&build).0, farm.log(&build)), ("passed", Vec::new()));
    let build = farm.done("bytes");
    assert_eq!(reason(&build).0, "passed", "{build}");
    assert_eq!(farm.log(&build), b"a\xff\xfe\x1b[2J</pre>z\n");
    let (status, page) = farm.get(&format!("/build/{}", build["id"]));
    let page = String::from_utf8(page).expect("a page is UTF-8");
    assert!(
        status == 200 && !page.contains('\x1b') && !page.contains("</pre>z"),
        "{page}"
    );

    // Repositories with odd things in them.
    for name in ["odd-ref", "odd-commit", "submodule", "case-clash"] {
        let build = farm.done(name);
        assert_eq!(
            reason(&build).0,
            "passed",
            "{build}: {}",
            String::from_utf8_lossy(&farm.log(&build))
        );
    }
    assert_eq!(farm.log(&farm.done("case-clash")), b"READMEreadme");
    let build = farm.done("links");
    assert_eq!(reason(&build).0, "passed", "{build}");
    let page = farm.json(&format!("/build/{}.json", build["id"]));
    let notes = page["attempts"][0]["notes"].to_string();
    assert!(
        notes.contains("out"),
        "the link that was left out is named: {notes}"
    );
    let commit = farm.json(&format!("/build/{}.json", farm.done("odd-commit")["id"]));
    assert_eq!(commit["commit"]["title"], "<b>caf\u{fffd}</b> \u{fffd}\u{1b}[2J");
    let (_, page) = farm.get("/repo/odd-commit/main");
    let page = String::from_utf8(page).expect("a page is UTF-8");
    assert!(
        page.contains("&lt;b&gt;caf\u{fffd}") && !page.contains("<b>caf"),
        "{page}"
    );

    // Repositories with nothing in them, or nothing that is asked for.
    let told = until("the empty one was looked at", || {
        Some(farm.health("repository empty")).filter(|(ok, text)| *ok && text.contains("empty"))
    });
    assert!(farm.builds("empty").is_empty(), "{told:?}");
    let (ok, text) = farm.health("repository typo");
    assert!(
        !ok && text.contains("`branches` matches none") && text.contains("main"),
        "{text}"
    );

    // Repositories that are not there yet, or not any more.
    let (ok, text) = farm.health("repository late");
    assert!(
        !ok && text.contains(dir.join("late").to_str().expect("a path")),
        "{text}"
    );
    repository(&dir.join("late"), &[("own", "text\n")]);
    assert_eq!(reason(&farm.done("leaving")).0, "passed");
    fs::rename(dir.join("leaving"), dir.join("left")).expect("moved");
    until("it is missed", || {
        (!farm.health("repository leaving").0).then_some(())
    });
    git(
        &dir.join("left"),
        &["commit", "-q", "--allow-empty", "-m", "meanwhile"],
    );
    fs::rename(dir.join("left"), dir.join("leaving")).expect("moved");
    until("it is built on", || {
        let builds = farm.builds("leaving");
        (builds.len() == 2 && builds.iter().all(|build| build["status"] == "passed")).then_some(())
    });
    assert!(farm.health("repository leaving").0);
    assert_eq!(reason(&farm.done("late")).0, "passed");

    a_password_is_shown_nowhere(&farm);
    archives_and_hooks_ask_who_it_is(&farm, dir);
    a_configuration_with_mistakes_is_refused_and_the_old_one_holds(&farm, &file);
}

fn a_password_is_shown_nowhere(farm: &Process) {
    let (ok, text) = farm.health("repository secret");
    assert!(!ok && text.contains("http://127.0.0.1:9/w"), "{text}");
    let mut said = vec![("the log".to_owned(), farm.said())];
    for path in [
        "/",
        "/status",
        "/status.json",
        "/mirror/",
        "/mirror/status.json",
        "/repo/secret",
    ] {
        said.push((
            path.to_owned(),
            String::from_utf8_lossy(&farm.get(path).1).into_owned(),
        ));
    }
    for command in ["status", "builds"] {
        let out = crate::burrow(&farm.state(), &[command, "--json"]);
        said.push((
            command.to_owned(),
            String::from_utf8_lossy(&out.stdout).into_owned(),
        ));
    }
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    for entry in processes {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        said.push((
            "a command line".to_owned(),
            String::from_utf8_lossy(&line).into_owned(),
        ));
    }
    for (place, text) in said {
        assert!(!text.contains(PASSWORD), "{place}: {text}");
    }
}

fn archives_and_hooks_ask_who_it_is(farm: &Process, dir: &Path) {
    let head = git(&dir.join("silent"), &["rev-parse", "HEAD"]);
    let path = format!("/silent.tar.gz?rev={head}");
    let (status, body) = farm.get(&path);
    assert!(status == 200 && body.starts_with(&[0x1f, 0x8b]), "{status}");
    assert_eq!(farm.ask("POST /hook/silent", "").0, 202);
    let made = crate::burrow(&farm.state(), &["token", "new", "amy"]);
    let made = String::from_utf8_lossy(&made.stdout).into_owned();
    let token = made
        .split_whitespace()
        .find(|word| word.starts_with("bt_"))
        .expect("a token");
    // A proxy on this machine asks for somebody else.
    for line in [format!("GET {path}"), "POST /hook/silent".to_owned()] {
        let proxied = "X-Forwarded-For: 10.1.2.3\r\n";
        let (status, body) = farm.ask(&line, proxied);
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(status == 401 && text.contains("token"), "{line}: {status} {text}");
        let bearer = |token: &str| format!("{proxied}Authorization: Bearer {token}\r\n");
        assert_eq!(farm.ask(&line, &bearer("bt_wrong")).0, 401, "{line}");
        assert!([200, 202].contains(&farm.ask(&line, &bearer(token)).0), "{line}");
    }
}

fn a_configuration_with_mistakes_is_refused_and_the_old_one_holds(farm: &Process, file: &Path) {
    let good = fs::read_to_string(file).expect("a file");
    assert_eq!(farm.health("configuration").1, "as on disk");
    fs::write(file, "[repo\nurl = \u{7f}").expect("a file");
    let (_, text) = until("it is refused", || {
        Some(farm.health("configuration")).filter(|(ok, _)| !ok)
    });
    assert!(
        text.contains("the old one holds") && text.contains("burrow.toml"),
        "{text}"
    );
    let (_, page) = farm.get("/status");
    assert!(String::from_utf8_lossy(&page).contains("the old one holds"));
    assert!(farm.health("repository silent").0);
    fs::write(file, good).expect("a file");
    until("it is taken", || farm.health("configuration").0.then_some(()));
}

#[test]
fn a_farm_that_cannot_start_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).expect("a file");
    let farm = "[host.local]\npool = \"local\"\n[builder.local]\nhost = \"local\"\n[repo.w]\nurl = \"/w\"\n\
                recipe = \"r\"\n[recipe.r]\nsteps = [{ name = \"t\", run = \"true\" }]\n";

    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = port.local_addr().expect("an address").to_string();
    write("taken.toml", &format!("[farm]\nlisten = \"{taken}\"\n{farm}"));
    let (code, said) = refused(dir, &["serve", "--config", "taken.toml", "--state-dir", "s1"]);
    assert!(
        code == 1 && said.contains(&taken) && said.contains("`listen`"),
        "{said}"
    );

    // A folder that nobody can make, not even root.
    write("plain", "a file");
    write("good.toml", &format!("[farm]\nlisten = \"127.0.0.1:0\"\n{farm}"));
    let (code, said) = refused(
        dir,
        &["serve", "--config", "good.toml", "--state-dir", "plain/state"],
    );
    assert!(code == 1 && said.contains("plain/state"), "{said}");

    let branch = farm.replace("url = \"/w\"", "url = \"/w\"\nbranches = [\"a..b\"]");
    write("branch.toml", &branch);
    let (code, said) = refused(dir, &["check", "branch.toml"]);
    assert!(code == 1 && said.contains("a..b"), "{said}");

    let (code, said) = refused(dir, &["serve", "--config", "nowhere.toml"]);
    assert!(code == 1 && said.contains("nowhere.toml"), "{said}");
}
