//! An upstream, a service that watches it, and a client of its routes.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use git::Upstream;
use gitmirror::{Look, MirrorService, RepoConfig};
use ids::{GitHash, RepoName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org"])
        .args(["-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs");
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

pub fn commit(dir: &Path, name: &str) -> GitHash {
    std::fs::write(dir.join(name), name).expect("a file");
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "-m", name]);
    git(dir, &["rev-parse", "HEAD"]).parse().expect("a hash")
}

pub fn widget() -> RepoName {
    "widget".parse().expect("a name")
}

/// So seldom that only a poke makes it look.
pub fn watched(upstream: &Path) -> Vec<RepoConfig> {
    vec![RepoConfig {
        name: widget(),
        upstream: Upstream::new(upstream.to_str().expect("a path")),
        poll: Duration::from_secs(3600),
    }]
}

pub struct World {
    pub upstream: tempfile::TempDir,
    pub state: tempfile::TempDir,
    pub service: Arc<MirrorService>,
    stop: CancellationToken,
    parts: JoinSet<()>,
}

impl World {
    /// Watches an upstream with one commit, `one`, and has seen it.
    pub async fn start() -> World {
        let (upstream, state) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        git(upstream.path(), &["init", "-q"]);
        commit(upstream.path(), "one");
        let service = MirrorService::new(state.path().to_owned(), watched(upstream.path()));
        let stop = CancellationToken::new();
        let mut parts = JoinSet::new();
        let running = service.clone().run(stop.clone());
        parts.spawn(async move { running.await.expect("a clean end") });
        let world = World {
            upstream,
            state,
            service,
            stop,
            parts,
        };
        world.until(|look| look.count > 0).await;
        world
    }

    /// Waits for a look at the upstream that is as wanted.
    pub async fn until(&self, wanted: impl Fn(&Look) -> bool) -> Look {
        let looking = async {
            loop {
                let look = self.service.looks().remove(&widget()).expect("it is watched");
                if wanted(&look) {
                    return look;
                }
                self.service.news().await;
            }
        };
        let looked = tokio::time::timeout(Duration::from_secs(30), looking).await;
        looked.expect("it is seen in time")
    }

    pub fn damage(&self, object: &str) {
        let objects = self.state.path().join("widget.git/objects");
        std::fs::remove_file(objects.join(&object[..2]).join(&object[2..])).expect("it is loose");
    }

    /// Serves all routes on a port of their own.
    pub async fn serve(&mut self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let tables = [gitmirror::archives(), gitmirror::hooks(), gitmirror::status()];
        let routes = tables
            .into_iter()
            .flatten()
            .fold(axum::Router::new(), |router, (path, route)| {
                router.route(path, route)
            })
            .with_state(self.service.clone());
        let stop = self.stop.clone();
        self.parts.spawn(async move {
            let server = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
            server.await.expect("it serves");
        });
        Client { address }
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(part) = self.parts.join_next().await {
            part.expect("no panic");
        }
    }
}

pub struct Client {
    address: String,
}

pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Client {
    /// `request`: `GET /path`, then header lines if any.
    pub async fn ask(&self, request: &str) -> Answer {
        let (line, fields) = request.split_once('\n').unwrap_or((request, ""));
        let fields: String = fields.lines().map(|field| format!("{field}\r\n")).collect();
        let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
        let text = format!("{line} HTTP/1.1\r\nHost: farm\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(text.as_bytes()).await.expect("it reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("it answers");
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec())
            .expect("text")
            .to_lowercase();
        Answer {
            status: head[9..12].parse().expect("a status"),
            body: bytes.split_off(end + 4),
            head,
        }
    }
}

impl Answer {
    /// A header field's value, in small letters; empty if it is not there.
    pub fn field(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(found, _)| *found == name)
            .map_or("", |(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The files of a tar.gz, each with its time.
pub fn unpacked(bytes: &[u8]) -> Vec<(String, u64)> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
    let entries = archive.entries().expect("a tar");
    let file = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let entry = entry.expect("whole");
        let name = entry.path().expect("a name").to_string_lossy().into_owned();
        (name, entry.header().mtime().expect("a time"))
    };
    entries
        .map(file)
        .filter(|(name, _)| name != "pax_global_header")
        .collect()
}
