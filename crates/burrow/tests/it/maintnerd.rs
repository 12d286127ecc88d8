//! `burrow maintnerd` as a process of its own: told by a repository, killed at any write.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use maintpb::borrowed::{Mutation, View};
use mutlog::{Folder, Records, Split};
use serde_json::Value;

use crate::farm::{Process, git, git_with};
use crate::until;

const COMMITS: usize = 3000;
/// More than one mutation's worth.
const TAGS: usize = 300;

/// How long the first run lives, and how much longer each that follows.
const LIFE: Duration = Duration::from_millis(60);

fn make(dir: &Path) {
    fs::create_dir_all(dir).expect("a folder");
    git(dir, &["init", "-q", "--bare"]);
    let mut stream = String::new();
    for n in 1..=COMMITS {
        let message = format!("commit {n}");
        stream += &format!(
            "commit refs/heads/main\nmark :{n}\ncommitter Ann <ann@example.org> {} +0000\ndata {}\n{message}\n\
             M 100644 inline count\ndata {}\n{n}\n\n",
            1_600_000_000 + n * 60,
            message.len(),
            n.to_string().len() + 1,
        );
    }
    for n in 1..=TAGS {
        stream += &format!("reset refs/tags/t{n}\nfrom :{}\n\n", n * COMMITS / TAGS);
    }
    git_with(dir, &["fast-import", "--quiet"], stream.as_bytes());
}

struct Maintnerd {
    child: Child,
    host: String,
}

impl Maintnerd {
    fn start(config: &Path) -> Maintnerd {
        let mut child = Command::new(env!("CARGO_BIN_EXE_burrow"))
            .arg("maintnerd")
            .arg("--config")
            .arg(config)
            .args(["--listen", "127.0.0.1:0"])
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("burrow starts");
        let mut line = String::new();
        let said = child.stdout.take().expect("it is piped");
        BufReader::new(said)
            .read_line(&mut line)
            .expect("it says where it is");
        let host = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        Maintnerd {
            host: host
                .unwrap_or_else(|| panic!("no address in {line:?}"))
                .to_owned(),
            child,
        }
    }

    /// `None`: it is gone, or not yet there.
    fn get(&self, path: &str) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.host).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.host).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        (&bytes[9..12] == b"200").then(|| bytes.split_off(end + 4))
    }

    fn json(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(&self.get(path)?).ok()
    }
}

impl Drop for Maintnerd {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The payloads of a log that nobody writes to.
fn payloads(log: &Path) -> Vec<Vec<u8>> {
    let folder = Folder::new(log);
    let mut all = Vec::new();
    for file in folder.log().expect("a whole log") {
        let bytes = fs::read(folder.path(&file)).expect("a segment");
        let mut records = Records::new(&bytes, 0);
        all.extend(records.by_ref().map(|(_, payload)| payload.to_vec()));
        assert!(matches!(records.end(), Split::End), "{file} is whole");
    }
    all
}

#[test]
fn a_maintnerd_that_is_killed_at_any_moment_loses_nothing_and_tells_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let upstream = dir.join("git/widget");
    make(&upstream);
    let config = dir.join("burrow.toml");
    let text = format!(
        "[farm]\nstate_dir = {:?}\n[forge.here]\nkind = \"git\"\ngit = {:?}\n\
         [maintner.watch.w]\nforge = \"here\"\nprojects = [\"widget\"]\n",
        dir.join("state"),
        dir.join("git")
    );
    fs::write(&config, text).expect("a file");

    // What a follower was shown of the first segment: it may only grow.
    let mut seen: Vec<u8> = Vec::new();
    let mut kills = 0_u32;
    let deadline = Instant::now() + Duration::from_secs(240);
    let done = loop {
        assert!(Instant::now() < deadline, "not done after {kills} kills");
        let maintnerd = Maintnerd::start(&config);
        let end = Instant::now() + LIFE + Duration::from_millis(u64::from(kills * 37 % 251));
        let mut good = false;
        // The last ones live on until they are done.
        while (Instant::now() < end || kills >= 25) && !good && Instant::now() < deadline {
            if let Some(bytes) = maintnerd.get("/logs/0") {
                assert!(
                    bytes.starts_with(&seen),
                    "what was shown has changed, after {kills} kills"
                );
                seen = bytes;
            }
            let status = maintnerd.json("/status.json");
            good = status.is_some_and(|status| status["sources"][0]["state"] == "good");
            std::thread::sleep(Duration::from_millis(5));
        }
        if good {
            break maintnerd;
        }
        drop(maintnerd);
        kills += 1;
    };
    drop(done);
    eprintln!("done after {kills} kills");
    assert!(kills >= 3, "it was hardly ever killed");

    let mut commits = BTreeSet::new();
    let mut refs = std::collections::BTreeMap::new();
    for payload in payloads(&dir.join("state/maintner")) {
        let told = Mutation::decode(&payload)
            .expect("a mutation")
            .gerrit
            .expect("all of one project");
        assert_eq!(told.project.lossy(), "local/widget");
        assert!(told.deleted_refs.is_empty());
        for commit in &told.commits {
            let hash = commit.sha1.lossy().into_owned();
            assert!(commits.insert(hash.clone()), "commit {hash} is told twice");
        }
        for told in &told.refs {
            let (name, hash) = (told.r#ref.lossy().into_owned(), told.sha1.lossy().into_owned());
            assert!(commits.contains(&hash), "{name} is told before its commit");
            assert!(refs.insert(name.clone(), hash).is_none(), "{name} is told twice");
        }
    }
    assert_eq!(commits.len(), COMMITS);
    assert_eq!(refs.len(), TAGS + 2, "HEAD, main and the tags");
    let main = git(&upstream, &["rev-parse", "main"]);
    assert_eq!(refs["refs/heads/main"], main.trim());
}

/// A repository with one commit, which says this.
fn one_commit(dir: &Path, message: &str) {
    fs::create_dir_all(dir).expect("a folder");
    git(dir, &["init", "-q"]);
    git(dir, &["commit", "-q", "--allow-empty", "-m", message]);
}

#[test]
fn a_farm_keeps_the_log_follows_what_it_watches_and_shows_it_to_whom_it_may() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    one_commit(&dir.join("git/widget"), "built");
    one_commit(&dir.join("git/other"), "watched");
    let text = |public: bool| {
        format!(
            "[farm]\nlisten = \"127.0.0.1:0\"\n[host.local]\npool = \"local\"\n[builder.local]\nhost = \"local\"\n\
             [recipe.own]\nsteps = [{{ name = \"test\", run = \"true\" }}]\n\
             [repo.widget]\nurl = {:?}\nrecipe = \"own\"\n[forge.here]\nkind = \"git\"\ngit = {:?}\n\
             [maintner]\npublic = {public}\n[maintner.watch.w]\nforge = \"here\"\nprojects = [\"other\"]\npoll = \"1h\"\n",
            dir.join("git/widget"),
            dir.join("git")
        )
    };
    fs::write(dir.join("burrow.toml"), text(false)).expect("a file");
    let farm = Process::start(dir, dir, &["serve", "--config", "burrow.toml"]);
    assert_eq!(farm.done("widget")["status"], "passed");
    until("what is watched is there", || {
        let view = farm.json("/maintner.json");
        let source = &view["sources"][0];
        (source["name"] == "git local/other" && source["state"] == "good" && source["told"] == 2)
            .then_some(())
    });
    let log = |fields: &str| farm.ask("GET /logs", fields).0;
    assert_eq!((log(""), log("X-Forwarded-For: 10.0.0.1\r\n")), (200, 401));
    let segment = farm.get("/logs/0").1;
    let told = |what: &str| segment.windows(what.len()).any(|found| found == what.as_bytes());
    assert!(told("built") && told("watched"));
    let metrics = String::from_utf8(farm.get("/metrics").1).expect("text");
    let failing = r#"burrow_source_failing{source="git local/other"} 0"#;
    assert!(metrics.contains(failing), "{metrics}");

    // It looks once an hour, and when it is told to.
    git(
        &dir.join("git/other"),
        &["commit", "-q", "--allow-empty", "-m", "later"],
    );
    assert_eq!(farm.ask("POST /hook/nobody", "").0, 404);
    assert_eq!(farm.ask("POST /hook/gerrit:local/other", "").0, 202);
    until("what is new is in the log", || {
        let segment = farm.get("/logs/0").1;
        segment.windows(5).any(|found| found == b"later").then_some(())
    });
    fs::write(dir.join("burrow.toml"), text(true)).expect("a file");
    until("it is public", || {
        (farm.ask("GET /logs", "X-Forwarded-For: 10.0.0.1\r\n").0 == 200).then_some(())
    });
}
