use std::sync::atomic::Ordering;
use std::time::Duration;

use buildlet_api::{CallError, PoolEvent};
use pool_reverse::RegisterHead;
use tokio::time::Instant;

use crate::farm::{Buildlet, Farm, GO, OURS, head};

fn ours(instance: &str) -> RegisterHead {
    RegisterHead {
        instance: Some(instance.into()),
        ..head()
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_of_gos_comes_up_serves_and_is_gone_after_a_halt() {
    let mut farm = Farm::new();
    let buildlet = Buildlet::start(&farm.pool, head(), GO);
    let PoolEvent::Up {
        machine,
        host_type,
        client,
        status,
        pool,
        address,
        resumable,
        ..
    } = farm.raw_event().await
    else {
        panic!("it comes up")
    };
    assert_eq!(
        (machine.as_str(), host_type.as_str(), pool),
        ("mac7", "linux", "reverse")
    );
    assert_eq!((status.version, resumable), (27, false));
    assert_eq!(address, "reverse from 10.0.0.7:1234");
    assert_eq!(client.status().await.unwrap().version, 27);
    // Go's server takes no Host with a space in it.
    let request = buildlet.manners.requests.lock().unwrap()[0].to_ascii_lowercase();
    assert!(request.contains("\r\nhost: buildlet\r\n"), "{request}");
    client.halt().await.unwrap();
    assert_eq!(farm.event().await.0, "down mac7");
    buildlet.ended().await;
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, CallError::Gone { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_of_ours_bears_its_instance_and_may_return() {
    let mut farm = Farm::new();
    let buildlet = Buildlet::start(&farm.pool, ours("4f2a91c0ffee"), OURS);
    let up = farm.event().await;
    assert_eq!(up.0, "up mac7.4f2a91c0");
    buildlet.task.abort();
    assert_eq!(
        farm.event().await,
        ("down mac7.4f2a91c0, may return".to_owned(), up.1)
    );
    let _again = Buildlet::start(&farm.pool, ours("4f2a91c0ffee"), OURS);
    let again = farm.event().await;
    assert_eq!(again.0, up.0);
    assert!(again.1 > up.1);
}

#[tokio::test(start_paused = true)]
async fn a_second_registration_of_one_instance_replaces_the_first() {
    let mut farm = Farm::new();
    let first = Buildlet::start(&farm.pool, ours("4f2a91c0ffee"), OURS);
    let up = farm.event().await;
    let _second = Buildlet::start(&farm.pool, ours("4f2a91c0ffee"), OURS);
    assert_eq!(
        farm.event().await,
        ("down mac7.4f2a91c0, may return".to_owned(), up.1)
    );
    let again = farm.event().await;
    assert_eq!(again.0, "up mac7.4f2a91c0");
    assert!(again.1 > up.1);
    first.ended().await;
    // The end of the first connection says nothing of the second.
    assert!(
        tokio::time::timeout(Duration::from_secs(60), farm.events.recv())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn another_host_type_or_instance_never_takes_a_name_over() {
    let mut farm = Farm::new();
    let _first = Buildlet::start(&farm.pool, ours("4f2a91c0ffee"), OURS);
    assert_eq!(farm.event().await.0, "up mac7.4f2a91c0");
    let _other = Buildlet::start(&farm.pool, ours("4f2a91c0beef"), OURS);
    assert_eq!(farm.event().await.0, "up mac7.4f2a91c0.2");
    let typed = RegisterHead {
        host_type: "mac".into(),
        ..ours("4f2a91c0ffee")
    };
    let _typed = Buildlet::start(&farm.pool, typed, OURS);
    assert_eq!(farm.event().await.0, "up mac7.4f2a91c0.3");
}

#[tokio::test(start_paused = true)]
async fn two_live_machines_of_gos_with_one_name_are_numbered() {
    let mut farm = Farm::new();
    let _first = Buildlet::start(&farm.pool, head(), GO);
    assert_eq!(farm.event().await.0, "up mac7");
    let _second = Buildlet::start(&farm.pool, head(), GO);
    assert_eq!(farm.event().await.0, "up mac7.2");
}

#[tokio::test(start_paused = true)]
async fn a_machine_of_gos_that_fails_a_ping_is_replaced_by_its_successor() {
    let mut farm = Farm::new();
    let first = Buildlet::start(&farm.pool, head(), GO);
    let up = farm.event().await;
    first.manners.deaf.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let _second = Buildlet::start(&farm.pool, head(), GO);
    assert_eq!(farm.event().await, ("down mac7".to_owned(), up.1));
    assert_eq!(farm.event().await.0, "up mac7");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    first.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_buildlet_too_old_or_without_sense_never_comes_up() {
    for status in [r#"{"Version":22}"#, "nonsense"] {
        let mut farm = Farm::new();
        Buildlet::start(&farm.pool, head(), status).ended().await;
        assert!(farm.events.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_buildlet_that_never_dials_back_is_given_up() {
    let mut farm = Farm::new();
    let began = Instant::now();
    let buildlet = Buildlet::start(&farm.pool, head(), GO);
    buildlet.manners.idle.store(true, Ordering::SeqCst);
    buildlet.ended().await;
    assert_eq!(began.elapsed().as_secs(), 20);
    assert!(farm.events.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_fails_says_why_and_the_next_is_not_confused_by_it() {
    let mut farm = Farm::new();
    let buildlet = Buildlet::start(&farm.pool, head(), GO);
    let client = farm.up().await;
    // The connection of the first calls is idle; two at once need another.
    buildlet.manners.deaf.store(true, Ordering::SeqCst);
    let busy = client.clone();
    let busy = tokio::spawn(async move { busy.status().await });
    while buildlet.manners.requests.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    buildlet.manners.no_route.store(true, Ordering::SeqCst);
    let error = client.status().await.unwrap_err();
    let CallError::Gone { source, .. } = error else {
        panic!("{error}")
    };
    assert!(
        source
            .to_string()
            .ends_with("could not dial back: no route to host"),
        "{source}"
    );
    buildlet.manners.no_route.store(false, Ordering::SeqCst);
    buildlet.manners.deaf.store(false, Ordering::SeqCst);
    client.status().await.unwrap();
    busy.abort();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_registration_takes_its_machine_along() {
    let mut farm = Farm::new();
    let buildlet = Buildlet::start(&farm.pool, head(), GO);
    let client = farm.up().await;
    // A call is under way when it happens.
    buildlet.manners.deaf.store(true, Ordering::SeqCst);
    let call = tokio::spawn(async move { client.status().await });
    while buildlet.manners.requests.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    buildlet.registration.abort();
    assert_eq!(farm.event().await.0, "down mac7");
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Gone { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1));
    buildlet.ended().await;
    let _next = Buildlet::start(&farm.pool, head(), GO);
    assert_eq!(farm.event().await.0, "up mac7");
}
