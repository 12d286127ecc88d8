use std::sync::atomic::Ordering;

use pool_reverse::{RegisterHead, ReverseConfig};
use tokio::io::{AsyncReadExt, duplex};

use crate::farm::{Buildlet, Farm, GO, head};

/// Status and text of a refusal.
fn shown(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    assert!(head.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{head}");
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{head}"
    );
    format!("{status} {body}")
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_registration_is_said_in_the_originals_order() {
    // Each row mends what the row before is refused for.
    let nothing = RegisterHead {
        key: "bad".into(),
        peer: "10.0.0.7:1".into(),
        ..RegisterHead::default()
    };
    let odd = RegisterHead {
        revdial_version: "3".into(),
        ..nothing.clone()
    };
    let spoken = RegisterHead {
        revdial_version: "2".into(),
        ..nothing.clone()
    };
    let named = RegisterHead {
        hostname: "mac7".into(),
        ..spoken.clone()
    };
    let typed = RegisterHead {
        host_type: "gone".into(),
        ..named.clone()
    };
    let keyed = RegisterHead {
        key: " good\n".into(),
        ..typed.clone()
    };
    let farm = Farm::new();
    for (head, wanted) in [
        (nothing, "400 missing X-Go-Builder-Hostname header\n"),
        (odd, "400 unknown revdial version\n"),
        (spoken, "400 missing X-Go-Builder-Hostname header\n"),
        (
            named.clone(),
            "400 missing X-Go-Host-Type; old buildlet binary?\n",
        ),
        (typed, "412 invalid build key\n"),
        (
            RegisterHead {
                host_type: "no type".into(),
                ..named
            },
            "412 invalid build key\n",
        ),
        (
            keyed,
            "412 unknown host type `gone`; the farm's configuration has none of that name\n",
        ),
    ] {
        assert_eq!(shown(&farm.refused(head).await), wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_guesses_keys_is_shut_out_for_a_minute() {
    let mut farm = Farm::new();
    let bad = RegisterHead {
        key: "bad".into(),
        ..head()
    };
    for port in 0..10 {
        let peer = format!("10.0.0.7:{port}");
        assert!(
            farm.refused(RegisterHead { peer, ..bad.clone() })
                .await
                .starts_with("HTTP/1.1 412 ")
        );
    }
    let wanted = "429 too many invalid build keys from this address; wait a minute\n";
    assert_eq!(shown(&farm.refused(bad.clone()).await), wanted);
    assert_eq!(shown(&farm.refused(head()).await), wanted);
    assert_eq!(farm.keys_asked.load(Ordering::SeqCst), 10);
    let elsewhere = RegisterHead {
        peer: "10.0.0.8:1".into(),
        ..bad
    };
    assert!(farm.refused(elsewhere).await.starts_with("HTTP/1.1 412 "));
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    let _buildlet = Buildlet::start(&farm.pool, head(), GO);
    assert_eq!(farm.event().await.0, "up mac7");
}

#[tokio::test(start_paused = true)]
async fn past_the_limit_of_sessions_a_registration_is_told_so() {
    let mut config = ReverseConfig::default();
    config.dialer.sessions = 1;
    let mut farm = Farm::with(config);
    let _first = Buildlet::start(&farm.pool, head(), GO);
    assert_eq!(farm.event().await.0, "up mac7");
    let answer = farm
        .refused(RegisterHead {
            hostname: "mac8".into(),
            ..head()
        })
        .await;
    assert_eq!(
        shown(&answer),
        "503 1 reverse sessions are open, which is the limit\n"
    );
}

#[tokio::test(start_paused = true)]
async fn connections_nobody_asked_for_are_closed() {
    let mut farm = Farm::new();
    let buildlet = Buildlet::start(&farm.pool, head(), GO);
    assert_eq!(farm.event().await.0, "up mac7");
    let used = buildlet.manners.dialed.lock().unwrap()[0].clone();
    for (path, wanted) in [
        ("/revdial?revdial.dialer=00", "400 unknown dialer\n"),
        (used.as_str(), "400 unknown dial; it may have expired\n"),
    ] {
        let (ours, mut theirs) = duplex(4096);
        farm.pool.pickup(path, Box::new(ours)).await;
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.unwrap();
        assert_eq!(shown(&text), wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_ends_its_sessions_and_admits_nobody() {
    let mut farm = Farm::new();
    let buildlet = Buildlet::start(&farm.pool, head(), GO);
    assert_eq!(farm.event().await.0, "up mac7");
    farm.pool.close();
    assert_eq!(farm.event().await.0, "down mac7");
    buildlet.ended().await;
    assert_eq!(
        shown(&farm.refused(head()).await),
        "503 the coordinator is stopping\n"
    );
}
