use std::sync::atomic::Ordering;
use std::time::Duration;

use pool_reverse::{KeyVerdict, RegisterHead};
use tokio::time::{Instant, sleep};

use crate::farm::{Buildlet, Farm, GO, OURS, head};

#[tokio::test(start_paused = true)]
async fn a_machine_that_answers_stays_for_hours() {
    let mut farm = Farm::new();
    let buildlet = Buildlet::start(&farm.pool, head(), GO);
    assert_eq!(farm.event().await.0, "up mac7");
    sleep(Duration::from_secs(3600)).await;
    assert!(farm.events.try_recv().is_err());
    let requests = buildlet.manners.requests.lock().unwrap().len();
    assert!((300..=361).contains(&requests), "{requests}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_misses_three_heartbeats_in_a_row_is_given_up() {
    let mut farm = Farm::new();
    let buildlet = Buildlet::start(&farm.pool, head(), OURS);
    assert_eq!(farm.event().await.0, "up mac7");
    buildlet.manners.deaf.store(true, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(farm.event().await.0, "down mac7, may return");
    // Three times 10 s of waiting and 20 s without an answer.
    assert_eq!(began.elapsed().as_secs(), 90);
    buildlet.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_sends_keep_alives_is_kept_by_them_and_given_up_without() {
    let mut farm = Farm::new();
    let quiet = RegisterHead {
        keeps_alive: true,
        instance: Some("4f2a91c0".into()),
        ..head()
    };
    let buildlet = Buildlet::start(&farm.pool, quiet.clone(), OURS);
    buildlet.manners.keep_alives.store(true, Ordering::SeqCst);
    assert_eq!(farm.event().await.0, "up mac7.4f2a91c0");
    sleep(Duration::from_secs(3600)).await;
    assert!(farm.events.try_recv().is_err());
    let asked = buildlet.manners.dialed.lock().unwrap().len();
    assert!((12..=14).contains(&asked), "{asked} connections in an hour");
    // Its network is gone, and the kernel says nothing.
    buildlet.manners.keep_alives.store(false, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(farm.event().await.0, "down mac7.4f2a91c0, may return");
    let took = began.elapsed().as_secs();
    assert!((70..=100).contains(&took), "{took}");
    buildlet.ended().await;
    // It lives, but does not answer: three looks ten seconds apart, each of 20 s.
    let buildlet = Buildlet::start(&farm.pool, quiet, OURS);
    buildlet.manners.keep_alives.store(true, Ordering::SeqCst);
    assert_eq!(farm.event().await.0, "up mac7.4f2a91c0");
    buildlet.manners.deaf.store(true, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(farm.event().await.0, "down mac7.4f2a91c0, may return");
    assert_eq!(began.elapsed().as_secs(), 300 + 20 + 2 * 30);
}

#[tokio::test(start_paused = true)]
async fn two_missed_heartbeats_are_forgiven() {
    let mut farm = Farm::new();
    let buildlet = Buildlet::start(&farm.pool, head(), GO);
    assert_eq!(farm.event().await.0, "up mac7");
    for _ in 0..5 {
        buildlet.manners.deaf.store(true, Ordering::SeqCst);
        sleep(Duration::from_secs(60)).await;
        buildlet.manners.deaf.store(false, Ordering::SeqCst);
        sleep(Duration::from_secs(60)).await;
    }
    assert!(farm.events.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_key_is_revoked_has_to_go_and_is_not_waited_for() {
    for verdict in [KeyVerdict::Bad, KeyVerdict::UnknownHostType] {
        let mut farm = Farm::new();
        let buildlet = Buildlet::start(&farm.pool, head(), OURS);
        assert_eq!(farm.event().await.0, "up mac7");
        *farm.verdict.lock().unwrap() = Some(verdict);
        assert_eq!(farm.event().await.0, "down mac7");
        buildlet.ended().await;
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_looked_up_turn_nobody_away_for_good() {
    let mut farm = Farm::new();
    let _buildlet = Buildlet::start(&farm.pool, head(), OURS);
    assert_eq!(farm.event().await.0, "up mac7");
    *farm.verdict.lock().unwrap() = Some(KeyVerdict::CannotTell);
    sleep(Duration::from_secs(3600)).await;
    assert!(farm.events.try_recv().is_err());
    let said = farm.refused(head()).await;
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
}
