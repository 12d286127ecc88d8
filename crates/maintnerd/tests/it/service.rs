use maintnerd::{Config, Leader, run};
use mutlog::Folder;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use web::Door;

use crate::farm::{PATIENCE, Server, append, contents, copy_of, issue, served, update};

#[tokio::test]
async fn a_service_follows_a_log_and_serves_it_on() {
    let dirs = tempfile::tempdir().unwrap();
    let leader = Leader::open_with_target(Folder::new(dirs.path().join("log")), 100).unwrap();
    append(&leader, (1..6).map(|number| issue(number, "title")).collect()).await;
    let server = Server::start(|stop| served(&leader, stop)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/logs", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let stop = CancellationToken::new();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config {
        folder: dirs.path().join("middle"),
        follow: Some(server.url.clone()),
        maintner: config::Maintner::default(),
    };
    let service = tokio::spawn(run(config, Door::Plain(listener), stop.clone()));

    let mut copy = copy_of(&url, &dirs.path().join("copy"));
    // The middle one may be asked before it has anything.
    let whole = async {
        while copy.segments().len() < 2 {
            if copy.update().await.is_err() {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(PATIENCE, whole).await.expect("the middle one serves on");
    append(&leader, vec![issue(9, "more")]).await;
    update(&mut copy).await;
    let [log, copied] = ["log", "copy"].map(|dir| contents(&dirs.path().join(dir)));
    assert_eq!(copied, log);
    stop.cancel();
    timeout(PATIENCE, service).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_service_serves_a_log_of_its_own_and_no_second_one_does() {
    let dirs = tempfile::tempdir().unwrap();
    let folder = dirs.path().join("log");
    let leader = Leader::open(Folder::new(&folder)).unwrap();
    append(&leader, vec![issue(1, "title")]).await;
    leader.close().unwrap();
    let start = |listener, stop: &CancellationToken| {
        let config = Config {
            folder: folder.clone(),
            follow: None,
            maintner: config::Maintner::default(),
        };
        tokio::spawn(run(config, Door::Plain(listener), stop.clone()))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/logs", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let stop = CancellationToken::new();
    let first = start(listener, &stop);
    let mut copy = copy_of(&url, &dirs.path().join("copy"));
    update(&mut copy).await;
    assert_eq!(contents(&dirs.path().join("copy")), contents(&folder));

    let second = start(TcpListener::bind("127.0.0.1:0").await.unwrap(), &stop);
    let error = timeout(PATIENCE, second).await.unwrap().unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("a log has one writer"), "{error:#}");
    stop.cancel();
    timeout(PATIENCE, first).await.unwrap().unwrap().unwrap();
}
