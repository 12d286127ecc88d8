use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Counts wrong keys per address. Pure: the time is an argument.
#[derive(Debug)]
pub(crate) struct BadKeys {
    per_minute: usize,
    /// When each address was wrong within the last minute, at most `per_minute` times.
    seen: BTreeMap<String, VecDeque<Duration>>,
}

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered at once; past it the ones least recently wrong are forgotten.
const ADDRESSES_MAX: usize = 4096;

impl BadKeys {
    pub fn new(per_minute: usize) -> BadKeys {
        BadKeys {
            per_minute,
            seen: BTreeMap::new(),
        }
    }

    /// Whether this address has used up its guesses for the minute before `now`.
    pub fn exhausted(&mut self, now: Duration, address: &str) -> bool {
        let address = &network(address);
        let Some(times) = self.seen.get_mut(address) else {
            return false;
        };
        times.retain(|&time| time + WINDOW > now);
        if times.is_empty() {
            self.seen.remove(address.as_str());
            return false;
        }
        times.len() >= self.per_minute
    }

    pub fn note(&mut self, now: Duration, address: &str) {
        let address = &network(address);
        if self.seen.len() >= ADDRESSES_MAX && !self.seen.contains_key(address.as_str()) {
            self.seen
                .retain(|_, times| times.back().is_some_and(|&last| last + WINDOW > now));
            let oldest = self.seen.iter().min_by_key(|(_, times)| times.back().copied());
            if self.seen.len() >= ADDRESSES_MAX
                && let Some(oldest) = oldest.map(|(address, _)| address.clone())
            {
                self.seen.remove(&oldest);
            }
        }
        let times = self.seen.entry(address.to_owned()).or_default();
        times.push_back(now);
        if times.len() > self.per_minute {
            times.pop_front();
        }
    }
}

/// Who is counted as one: an IPv4 address, or the 64 bits of an IPv6 network, which one guesser has all of.
fn network(address: &str) -> String {
    match address.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V6(ip)) => match ip.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).to_string(),
            v4 => v4.to_string(),
        },
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn an_address_has_its_guesses_per_minute() {
        let mut keys = BadKeys::new(2);
        keys.note(secs(0), "a");
        assert!(!keys.exhausted(secs(1), "a"));
        keys.note(secs(30), "a");
        assert!(keys.exhausted(secs(59), "a"));
        assert!(!keys.exhausted(secs(59), "b"));
        assert!(!keys.exhausted(secs(60), "a"));
        keys.note(secs(60), "a");
        assert!(keys.exhausted(secs(61), "a"));
        assert!(!keys.exhausted(secs(500), "a"));
        assert!(keys.seen.is_empty());
    }

    #[test]
    fn a_network_of_one_guesser_is_one_address() {
        let mut keys = BadKeys::new(1);
        keys.note(secs(0), "[2001:db8:0:7::1]");
        assert!(keys.exhausted(secs(1), "[2001:db8:0:7:ffff::9]"));
        assert!(!keys.exhausted(secs(1), "[2001:db8:0:8::1]"));
        keys.note(secs(0), "[::ffff:10.0.0.7]");
        assert!(keys.exhausted(secs(1), "10.0.0.7"));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let mut keys = BadKeys::new(1);
        for n in 0..ADDRESSES_MAX as u64 + 10 {
            keys.note(Duration::from_millis(n), &format!("a{n}"));
        }
        assert_eq!(keys.seen.len(), ADDRESSES_MAX);
        assert!(!keys.exhausted(secs(10), "a0"));
        assert!(keys.exhausted(secs(10), &format!("a{}", ADDRESSES_MAX + 9)));
    }
}
