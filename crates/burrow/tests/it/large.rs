//! A repository with a long history and many branches.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::farm::{Process, git, git_with};
use crate::until;

const COMMITS: usize = 20_000;
const BRANCHES: usize = 1_000;

/// `main` with so many commits, and branches that begin all along it.
fn make(dir: &Path) {
    fs::create_dir(dir).expect("a folder");
    git(dir, &["init", "-q"]);
    let mut stream = String::new();
    for n in 1..=COMMITS {
        let file = if n == 1 { "Makefile" } else { "count" };
        let text = if n == 1 {
            "all:\n\ttrue\n".to_owned()
        } else {
            format!("{n}\n")
        };
        let message = format!("commit {n}");
        stream += &format!(
            "commit refs/heads/main\nmark :{n}\ncommitter Ann <ann@example.org> {} +0000\ndata {}\n{message}\n\
             M 100644 inline {file}\ndata {}\n{text}\n",
            1_600_000_000 + n * 60,
            message.len(),
            text.len()
        );
    }
    for n in 1..=BRANCHES {
        stream += &format!("reset refs/heads/b{n}\nfrom :{}\n\n", n * COMMITS / BRANCHES);
    }
    git_with(dir, &["fast-import", "--quiet"], stream.as_bytes());
    git(dir, &["reset", "-q", "--hard"]);
}

#[test]
fn a_long_history_is_on_the_first_page_soon_and_branches_follow() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, place) = (folder.path(), folder.path().join("widget"));
    make(&place);

    let began = Instant::now();
    let farm = Process::start(dir, &place, &["up", "--open-nothing", "--listen", "127.0.0.1:0"]);
    let up = began.elapsed();
    until("the newest commit is on the page", || {
        let (status, page) = farm.get("/repo/widget/main");
        (status == 200 && String::from_utf8_lossy(&page).contains("commit 20000")).then_some(())
    });
    let shown = began.elapsed();
    assert_eq!(farm.done("widget")["status"], "passed");
    eprintln!(
        "up after {up:?}, the page after {shown:?}, a build after {:?}",
        began.elapsed()
    );
    drop(farm);

    let text = format!(
        "[farm]\nlisten = \"127.0.0.1:0\"\n[host.local]\npool = \"local\"\n[builder.local]\nhost = \"local\"\n\
         [recipe.own]\nsteps = [{{ name = \"test\", run = \"true\" }}]\n\
         [repo.widget]\nurl = {place:?}\nbranches = [\"b1*\"]\nbackfill = 0\nrecipe = \"own\"\n"
    );
    fs::write(dir.join("burrow.toml"), text).expect("a file");
    let began = Instant::now();
    let farm = Process::start(dir, dir, &["serve", "--config", "burrow.toml"]);
    until("every branch that is followed is there", || {
        let page = farm.json("/index.json");
        let branches = page["repos"][0]["branches_in_all"].as_u64().unwrap_or(0);
        // `main`, and b1, b10 to b19, b100 to b199, b1000.
        (branches == 1 + 112).then_some(())
    });
    eprintln!("112 more branches after {:?}", began.elapsed());
}
