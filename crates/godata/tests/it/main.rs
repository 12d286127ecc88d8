//! The example that people copy, run against a server.

#[allow(dead_code)] // its `main` is for people
#[path = "../../examples/watch.rs"]
mod watch;

use std::path::Path;
use std::time::Duration;

use maintnerd::{Leader, Served, routes};
use maintpb::{GithubIssueMutation, Message, Mutation, Timestamp};
use mutlog::Folder;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

fn issue(number: i32, title: &str) -> Vec<u8> {
    let issue = GithubIssueMutation {
        owner: "golang".into(),
        repo: "go".into(),
        number,
        created: Some(Timestamp {
            seconds: number.into(),
            nanos: 0,
        }),
        title: title.into(),
        body: "two words".into(),
        ..Default::default()
    };
    let github_issue = Some(issue);
    Mutation {
        github_issue,
        ..Default::default()
    }
    .encode_to_vec()
}

struct Server {
    leader: Leader,
    url: String,
    stop: CancellationToken,
}

impl Server {
    async fn start(dir: &Path) -> Server {
        let leader = Leader::open(Folder::new(dir)).unwrap();
        let stop = CancellationToken::new();
        let router = routes(Served {
            visible: leader.visible.clone(),
            reader: leader.reader.clone(),
            stop: stop.clone(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/logs", listener.local_addr().unwrap());
        let serve = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move { serve.await.unwrap() });
        Server { leader, url, stop }
    }

    async fn append(&self, payload: Vec<u8>) {
        let appender = self.leader.appender.clone();
        tokio::task::spawn_blocking(move || appender.append(vec![payload]).unwrap())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_example_says_what_is_open_and_then_what_changes() {
    let dirs = tempfile::tempdir().unwrap();
    let server = Server::start(&dirs.path().join("log")).await;
    server.append(issue(1, "first")).await;
    server.append(issue(2, "second")).await;
    let copy = dirs.path().join("copy");
    let mut data = timeout(PATIENCE, godata::live(&server.url, &copy))
        .await
        .unwrap()
        .unwrap();
    let expect = [
        "golang/go#2: second by somebody, 2 words",
        "golang/go#1: first by somebody, 2 words",
    ];
    assert_eq!(watch::open(&data).unwrap(), expect);
    let before = data.now();

    server.append(issue(1, "renamed")).await;
    let changed = timeout(PATIENCE, watch::changed(&mut data))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(changed, ["golang/go#1: renamed"]);
    // Who still looks at the corpus of before sees no change.
    let old = before.corpus.repo("golang", "go").unwrap().issue(1).unwrap();
    assert_eq!(&*old.title, "first");

    // A second program at the same folder is told, and harms nothing.
    let error = godata::live(&server.url, &copy).await.err().unwrap();
    assert!(format!("{error:#}").contains("lock the log"), "{error:#}");

    // With the server away, what was kept is there.
    server.stop.cancel();
    drop(data);
    let kept = loop {
        // The one before lets go of the folder when its last wait ends.
        match timeout(PATIENCE, godata::live(&server.url, &copy)).await.unwrap() {
            Ok(kept) => break kept,
            Err(error) => assert!(format!("{error:#}").contains("lock the log"), "{error:#}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        watch::open(&kept).unwrap()[1],
        "golang/go#1: renamed by somebody, 2 words"
    );
    let offline = godata::open(&copy).unwrap();
    assert_eq!(offline.corpus.repos().count(), 1);
    let wrong = godata::live("no url", &copy).await.err().unwrap();
    assert!(wrong.to_string().contains("`no url` is no URL"), "{wrong}");
}
