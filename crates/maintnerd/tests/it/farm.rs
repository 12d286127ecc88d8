//! A leader with its server, as others see it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use maintnerd::{Copy, Leader, Outcome, Served, routes};
use maintpb::{GithubIssueMutation, Message, Mutation, Timestamp};
use mutlog::{Folder, Sum};
use reqwest::Url;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Long enough for anything that happens on one machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The two records of the worked example.
pub const FIRST: &[u8] = b"\x0a\x20\x0a\x06golang\x12\x02go\x18\x07\x32\x06\x08\x80\x8a\xe0\xd8\x05\x9a\x01\x00\xba\x01\x04\xf3\xff\xf8\x47";
pub const SECOND: &[u8] = b"\"Z\x0a\x19go.googlesource.com/build\x1a=\x0a\x11refs/heads/master\x12(3b5637ff2bd5c03479780995e7a35c48222157c1";

/// A mutation that makes issue `number`, titled `title`.
pub fn issue(number: i32, title: &str) -> Vec<u8> {
    let issue = GithubIssueMutation {
        owner: "golang".into(),
        repo: "go".into(),
        number,
        created: Some(Timestamp { seconds: 1, nanos: 0 }),
        title: title.into(),
        ..Default::default()
    };
    Mutation {
        github_issue: Some(issue),
        ..Default::default()
    }
    .encode_to_vec()
}

pub fn served(leader: &Leader, stop: &CancellationToken) -> Router {
    routes(Served {
        visible: leader.visible.clone(),
        reader: leader.reader.clone(),
        stop: stop.clone(),
    })
}

/// Appends off the runtime, as it waits for the disk.
pub async fn append(leader: &Leader, payloads: Vec<Vec<u8>>) {
    let appender = leader.appender.clone();
    tokio::task::spawn_blocking(move || appender.append(payloads).unwrap())
        .await
        .unwrap();
}

/// Serves until dropped.
pub struct Server {
    pub url: Url,
    stop: CancellationToken,
}

impl Server {
    /// `router` gets what is cancelled at the end.
    pub async fn start(router: impl FnOnce(&CancellationToken) -> Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Server::on(listener, router)
    }

    pub fn on(listener: TcpListener, router: impl FnOnce(&CancellationToken) -> Router) -> Server {
        let url = format!("http://{}/logs", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let stop = CancellationToken::new();
        let serve =
            axum::serve(listener, router(&stop)).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move { serve.await.unwrap() });
        Server { url, stop }
    }
}

impl Server {
    /// Where it was; another can be there soon.
    pub fn stop(self) -> SocketAddr {
        self.url.socket_addrs(|| None).unwrap()[0]
    }
}

/// Waits until the one who was there is gone.
pub async fn bind_again(address: SocketAddr) -> TcpListener {
    let bound = async {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, bound)
        .await
        .expect("the one before is gone")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn copy_of(url: &Url, dir: &Path) -> Copy {
    // The other tests may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Copy::open(url.clone(), Folder::new(dir)).unwrap()
}

pub async fn update(copy: &mut Copy) -> Outcome {
    tokio::time::timeout(PATIENCE, copy.update())
        .await
        .unwrap()
        .unwrap()
}

/// What the folder of a log holds, segment by segment, checked against their names.
pub fn contents(dir: &Path) -> Vec<Vec<u8>> {
    let folder = Folder::new(dir);
    let files = folder.log().unwrap();
    let read = |file: &mutlog::SegmentFile| {
        let bytes = std::fs::read(folder.path(file)).unwrap();
        if let mutlog::State::Sealed(sum) = file.state {
            assert_eq!(Sum::of(&bytes), sum);
        }
        bytes
    };
    files.iter().map(read).collect()
}
