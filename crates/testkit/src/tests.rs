use crate::{Account, Fault, simulate};

/// How many farms an ordinary run simulates; `BURROW_SEEDS` sets another number.
fn seeds() -> u64 {
    std::env::var("BURROW_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(500)
}

#[test]
fn no_request_is_lost_none_is_run_twice_and_every_end_has_a_reason() {
    let mut total = Account::default();
    for seed in 0..seeds() {
        match simulate(seed, None) {
            Ok(account) => {
                total.builds += account.builds;
                total.attempts += account.attempts;
                total.passed += account.passed;
                total.failed += account.failed;
                total.infra += account.infra;
                total.cancelled += account.cancelled;
                total.coordinator_kills += account.coordinator_kills;
                total.machine_deaths += account.machine_deaths;
                total.link_stalls += account.link_stalls;
                total.clock_jumps += account.clock_jumps;
            }
            Err(failure) => {
                panic!(
                    "seed {}: {}\n{}",
                    failure.seed,
                    failure.violation.0,
                    failure.trace.join("\n")
                )
            }
        }
    }
    println!("{} farms: {total:?}", seeds());
    // The worlds are worth simulating only while each kind of trouble and each end occurs.
    for (what, count) in [
        ("passed", total.passed),
        ("failed", total.failed),
        ("infra", total.infra),
        ("cancelled", total.cancelled),
        ("coordinator kills", total.coordinator_kills as usize),
        ("machine deaths", total.machine_deaths as usize),
        ("link stalls", total.link_stalls as usize),
        ("clock jumps", total.clock_jumps as usize),
    ] {
        assert!(count > 0, "no {what} in {} farms", seeds());
    }
}

#[test]
fn the_same_seed_is_the_same_farm() {
    for seed in 0..5 {
        assert_eq!(simulate(seed, None).ok(), simulate(seed, None).ok());
    }
}

#[test]
fn every_planted_fault_is_found() {
    for fault in Fault::ALL {
        let found = (0..100).find_map(|seed| simulate(seed, Some(fault)).err());
        let found = found.unwrap_or_else(|| panic!("{fault:?} was not found in 100 farms"));
        println!("{fault:?}: seed {}: {}", found.seed, found.violation.0);
    }
}
