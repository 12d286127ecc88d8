//! Machines with keys of their own.

use std::time::Duration;

use ids::HostType;
use pool_reverse::{IdentityVerdict, RegisterHead};
use revdial::proof;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::farm::{Buildlet, Farm, OURS, head, read_challenge};

#[derive(Clone)]
struct Machine {
    pair: Arc<Ed25519KeyPair>,
    public: String,
}

impl Machine {
    /// A machine that the farm knows as `name`.
    fn enrolled(farm: &Farm, name: &str) -> Machine {
        let machine = Machine::stranger();
        let known = IdentityVerdict::Known {
            name: name.to_owned(),
            host_type: HostType::parse("linux").unwrap(),
        };
        farm.enrolled
            .lock()
            .unwrap()
            .insert(machine.public.clone(), known);
        machine
    }

    fn stranger() -> Machine {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Arc::new(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap());
        let public = proof::hex(pair.public_key().as_ref());
        Machine { pair, public }
    }

    fn head(&self, instance: &str) -> RegisterHead {
        RegisterHead {
            key: String::new(),
            host_type: String::new(),
            instance: Some(instance.to_owned()),
            identity: Some(self.public.clone()),
            ..head()
        }
    }

    fn proof(&self, challenge: &str, hostname: &str, instance: &str) -> String {
        let message = proof::registration(challenge, &self.public, hostname, instance);
        let signature = proof::hex(self.pair.sign(message.as_bytes()).as_ref());
        format!("GET /reverse HTTP/1.1\r\nHost: \r\nX-Burrow-Proof: {signature}\r\n\r\n")
    }

    fn start(&self, farm: &Farm, instance: &'static str) -> Buildlet {
        let machine = self.clone();
        Buildlet::start_proving(&farm.pool, self.head(instance), OURS, move |challenge| {
            machine.proof(challenge, "mac7", instance)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn who_proves_its_key_is_let_in_by_the_name_the_farm_gave_it() {
    let mut farm = Farm::new();
    let machine = Machine::enrolled(&farm, "rack-7");
    let buildlet = machine.start(&farm, "4f2a91c0ffee");
    assert_eq!(farm.event().await.0, "up rack-7.4f2a91c0");
    assert_eq!(farm.keys_asked.load(Ordering::SeqCst), 0, "no key was shown");
    // Revoked, it has to go, and is not waited for.
    farm.enrolled
        .lock()
        .unwrap()
        .insert(machine.public.clone(), IdentityVerdict::Revoked);
    assert_eq!(farm.event().await.0, "down rack-7.4f2a91c0");
    buildlet.ended().await;
    let answer = farm.refused(machine.head("4f2a91c0ffee")).await;
    assert!(
        answer.contains(" 412 ") && answer.contains("was revoked"),
        "{answer}"
    );
}

/// What who registers with `second` as its second request is told.
async fn answered(farm: &Farm, head: RegisterHead, second: impl FnOnce(&str) -> String) -> String {
    let (ours, mut theirs) = duplex(64 * 1024);
    let pool = farm.pool.clone();
    let registering = tokio::spawn(async move { pool.register(head, Box::new(ours)).await });
    let challenge = read_challenge(&mut theirs).await;
    theirs.write_all(second(&challenge).as_bytes()).await.unwrap();
    let mut text = String::new();
    theirs.read_to_string(&mut text).await.unwrap();
    registering.await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    format!("{} {}", head.split(' ').nth(1).unwrap(), body.trim())
}

#[tokio::test(start_paused = true)]
async fn nobody_else_is_let_in() {
    let farm = Farm::new();
    let (machine, other) = (
        Machine::enrolled(&farm, "rack-7"),
        Machine::enrolled(&farm, "rack-8"),
    );
    let wanted = "412 the proof is not by the key of this machine";
    let mut heard = String::new();
    // Right, but for another instance than the head says; what was signed is kept for later.
    let answer = answered(&farm, machine.head("one"), |challenge| {
        heard = machine.proof(challenge, "mac7", "one");
        machine.proof(challenge, "mac7", "two")
    });
    assert_eq!(answer.await, wanted);
    assert_eq!(
        answered(&farm, machine.head("one"), |_| heard.clone()).await,
        wanted,
        "a proof is for once"
    );
    let by_other = answered(&farm, machine.head("one"), |challenge| {
        other.proof(challenge, "mac7", "one")
    });
    assert_eq!(by_other.await, wanted);
    let elsewhere = answered(&farm, machine.head("one"), |challenge| {
        machine.proof(challenge, "mac8", "one")
    });
    assert_eq!(elsewhere.await, wanted);
    let none = "GET /reverse HTTP/1.1\r\nHost: \r\n\r\n";
    assert_eq!(
        answered(&farm, machine.head("one"), |_| none.to_owned()).await,
        wanted
    );
    for (second, wanted) in [
        (
            format!("{none}more"),
            "400 more came than the request with the proof",
        ),
        (
            "x".repeat(40_000),
            "400 the request with the proof is longer than 16 KiB",
        ),
    ] {
        assert_eq!(answered(&farm, machine.head("one"), |_| second).await, wanted);
    }
    // Slower than it may be.
    let (ours, mut theirs) = duplex(4096);
    let (pool, head) = (farm.pool.clone(), machine.head("one"));
    let registering = tokio::spawn(async move { pool.register(head, Box::new(ours)).await });
    read_challenge(&mut theirs).await;
    let mut text = String::new();
    theirs.read_to_string(&mut text).await.unwrap();
    registering.await.unwrap();
    assert!(
        text.contains(" 408 ") && text.contains("no proof came within 10s"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn strangers_are_told_and_guesses_are_counted() {
    let farm = Farm::new();
    let mut typed = Machine::enrolled(&farm, "rack-7").head("one");
    typed.host_type = "mac".to_owned();
    let answer = farm.refused(typed).await;
    assert!(answer.contains("enrolled as `linux`"), "{answer}");
    let mut odd = Machine::stranger().head("one");
    odd.identity = Some("0F".repeat(32));
    assert!(farm.refused(odd).await.contains("wanted 64 hex digits"));
    for _ in 0..9 {
        let answer = farm.refused(Machine::stranger().head("one")).await;
        assert!(
            answer.contains(" 412 ") && answer.contains("enrol it with a new token"),
            "{answer}"
        );
    }
    let answer = farm.refused(Machine::enrolled(&farm, "rack-8").head("one")).await;
    assert!(answer.contains(" 429 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn one_machine_is_up_once_whatever_its_buildlets_say() {
    let mut farm = Farm::new();
    let machine = Machine::enrolled(&farm, "rack-7");
    let first = machine.start(&farm, "11111111");
    assert_eq!(farm.event().await.0, "up rack-7.11111111");
    // Its connection is lost, and the farm has not noticed: the same buildlet is back.
    let again = machine.start(&farm, "11111111");
    assert_eq!(farm.event().await.0, "down rack-7.11111111, may return");
    assert_eq!(farm.event().await.0, "up rack-7.11111111");
    first.ended().await;
    // A copy of its key elsewhere, while it answers.
    let copy = machine.start(&farm, "22222222");
    copy.ended().await;
    assert!(farm.events.try_recv().is_err(), "the one that is up stays");
    // The machine was started anew and the farm has not noticed.
    again.manners.deaf.store(true, Ordering::SeqCst);
    let _anew = machine.start(&farm, "33333333");
    assert_eq!(farm.event().await.0, "down rack-7.11111111, may return");
    assert_eq!(farm.event().await.0, "up rack-7.33333333");
    again.ended().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(farm.events.try_recv().is_err(), "it stays");
}
