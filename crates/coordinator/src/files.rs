//! How many files may be open: every connection is one.

use config::{Config, Pool};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// For pages, mirrors, the store and logs.
const OWN: u64 = 1000;
/// Of each machine that dials in: one while it idles, some more while it builds.
const EACH: u64 = 4;

/// Raises the limit as far as the machines need that are expected, and says when it may not be raised so far. No further:
/// what is started here inherits it, and some programs walk through all numbers below it.
pub fn raise(config: &Config) {
    let machines = expected(config);
    if machines == 0 {
        return;
    }
    let wanted = OWN + EACH * machines;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|current| *current < wanted) else {
        return;
    };
    let may = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit {
        current: Some(may),
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) if may > current => info!("open files: the limit is raised from {current} to {may}"),
        Ok(()) => {}
        Err(why) => warn!("open files: the limit of {current} cannot be raised to {may}: {why}"),
    }
    if let Some(why) = too_few(may, machines) {
        warn!("{why}");
    }
}

fn expected(config: &Config) -> u64 {
    let of = |pool: &Pool| match pool {
        Pool::Reverse { expect, .. } => u64::from(*expect),
        // Theirs are processes here, with limits of their own.
        Pool::Local { .. } => 0,
    };
    config.hosts.values().map(|host| of(&host.pool)).sum()
}

fn too_few(limit: u64, machines: u64) -> Option<String> {
    let wanted = OWN + EACH * machines;
    (limit < wanted).then(|| {
        format!(
            "open files: {limit} are allowed, and {machines} machines at work may need {wanted}; connections are refused when \
             they run out. Raise it: `LimitNOFILE=` in a systemd unit, `ulimit -n` in a shell, `nofile` in limits.conf"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::too_few;

    #[test]
    fn a_limit_is_told_of_when_machines_would_not_fit() {
        assert_eq!(too_few(1024, 1), None);
        assert_eq!(too_few(41_000, 10_000), None);
        let why = too_few(20_000, 10_000).expect("too few");
        assert!(
            why.contains("20000 are allowed") && why.contains("need 41000"),
            "{why}"
        );
    }
}
