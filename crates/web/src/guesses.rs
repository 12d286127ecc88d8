//! How often who may be wrong about a secret. Pure: the time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use http::HeaderMap;
use sha2::{Digest, Sha256};

/// Different wrong secrets that one client may show within [`WINDOW`]. The same one again is no new guess: a program
/// with an old token, or a browser with an old cookie, locks nobody out.
const WRONG_MAX: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Secrets of one client that were good; they stay good to show after wrong ones.
const GOOD_MAX: usize = 8;
/// Clients remembered at once; past it the one least recently heard of is forgotten.
const CLIENTS_MAX: usize = 4096;

/// Who is counted as one: an IPv4 address, or the 64 bits of an IPv6 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client(IpAddr);

impl Client {
    /// The peer of the connection; of one from this machine, whom a proxy on it says it asks for.
    pub fn of(peer: IpAddr, headers: &HeaderMap) -> Client {
        let peer = peer.to_canonical();
        let told = headers.get_all("x-forwarded-for").iter().next_back();
        let told = told
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
        match told {
            Some(told) if peer.is_loopback() => Client::from(told.to_canonical()),
            _ => Client::from(peer),
        }
    }
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Client {
        Client(match address {
            IpAddr::V6(ip) if !ip.is_loopback() => {
                Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into()
            }
            other => other,
        })
    }
}

/// What is remembered of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown([u8; 16]);

impl Shown {
    pub fn of(secret: &str) -> Shown {
        let digest = Sha256::digest(secret.as_bytes());
        Shown(digest[..16].try_into().expect("SHA-256 has 32 bytes"))
    }
}

#[derive(Debug, Default)]
pub struct Guesses(BTreeMap<Client, Seen>);

#[derive(Debug, Default)]
struct Seen {
    wrong: VecDeque<(Duration, Shown)>,
    good: VecDeque<Shown>,
    last: Duration,
}

impl Guesses {
    /// Whether this secret may be looked up. It counts as wrong until [`Guesses::settle`] says otherwise, so that many
    /// at once are not let through together.
    pub fn may(&mut self, now: Duration, client: Client, secret: Shown) -> bool {
        if !self.0.contains_key(&client) && self.0.len() >= CLIENTS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, seen)| seen.last);
            if let Some(oldest) = oldest.map(|(client, _)| *client) {
                self.0.remove(&oldest);
            }
        }
        let seen = self.0.entry(client).or_default();
        seen.last = now;
        seen.wrong.retain(|(at, _)| *at + WINDOW > now);
        if seen.good.contains(&secret) || seen.wrong.iter().any(|(_, one)| *one == secret) {
            return true;
        }
        if seen.wrong.len() >= WRONG_MAX {
            return false;
        }
        seen.wrong.push_back((now, secret));
        true
    }

    /// What came of it. `None`: it could not be looked up.
    pub fn settle(&mut self, client: Client, secret: Shown, good: Option<bool>) {
        let Some(seen) = self.0.get_mut(&client) else {
            return;
        };
        if good != Some(true) {
            seen.good.retain(|one| *one != secret || good.is_none());
        }
        if good != Some(false) {
            seen.wrong.retain(|(_, one)| *one != secret);
        }
        if good == Some(true) && !seen.good.contains(&secret) {
            seen.good.push_back(secret);
            if seen.good.len() > GOOD_MAX {
                seen.good.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client::from(address.parse::<IpAddr>().expect("an address"))
    }

    fn guess(guesses: &mut Guesses, secs: u64, who: &str, secret: &str, good: bool) -> bool {
        let shown = Shown::of(secret);
        let may = guesses.may(Duration::from_secs(secs), client(who), shown);
        if may {
            guesses.settle(client(who), shown, Some(good));
        }
        may
    }

    #[test]
    fn a_client_has_its_guesses_per_minute_and_others_have_theirs() {
        let mut guesses = Guesses::default();
        for n in 0..WRONG_MAX {
            assert!(guess(&mut guesses, n as u64, "10.0.0.1", &format!("w{n}"), false));
        }
        assert!(!guess(&mut guesses, 11, "10.0.0.1", "one more", false));
        assert!(guess(&mut guesses, 11, "10.0.0.2", "one more", false));
        // The first is a minute old: there is room for one.
        assert!(guess(&mut guesses, 60, "10.0.0.1", "one more", false));
        assert!(!guess(&mut guesses, 60, "10.0.0.1", "and another", false));
    }

    #[test]
    fn an_old_cookie_shown_again_and_again_is_one_guess() {
        let mut guesses = Guesses::default();
        for n in 0..1000 {
            assert!(guess(&mut guesses, n / 20, "10.0.0.1", "old", false));
        }
        assert!(guess(&mut guesses, 50, "10.0.0.1", "mistyped", false));
    }

    #[test]
    fn who_has_shown_a_good_secret_may_show_it_after_wrong_ones() {
        let mut guesses = Guesses::default();
        assert!(guess(&mut guesses, 0, "10.0.0.1", "good", true));
        for n in 0..WRONG_MAX {
            assert!(guess(&mut guesses, 1, "10.0.0.1", &format!("w{n}"), false));
        }
        assert!(!guess(&mut guesses, 1, "10.0.0.1", "new", true));
        assert!(guess(&mut guesses, 1, "10.0.0.1", "good", true));
        // Revoked meanwhile: from then on it is one more wrong one.
        assert!(guess(&mut guesses, 1, "10.0.0.1", "good", false));
        assert!(!guess(&mut guesses, 1, "10.0.0.1", "good", false));
    }

    #[test]
    fn many_at_once_are_not_let_through_together() {
        let mut guesses = Guesses::default();
        let at = Duration::ZERO;
        let let_in = (0..100).filter(|n| guesses.may(at, client("10.0.0.1"), Shown::of(&n.to_string())));
        assert_eq!(let_in.count(), WRONG_MAX);
        // What could not be looked up is no guess.
        for n in 0..WRONG_MAX {
            guesses.settle(client("10.0.0.1"), Shown::of(&n.to_string()), None);
        }
        assert!(guesses.may(at, client("10.0.0.1"), Shown::of("next")));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_network_is_one_client() {
        let mut guesses = Guesses::default();
        for n in 0..CLIENTS_MAX as u128 + 100 {
            let address = IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + (n << 64) + n));
            guesses.may(Duration::from_micros(n as u64), address.into(), Shown::of("x"));
        }
        assert_eq!(guesses.0.len(), CLIENTS_MAX);
        assert!(!guesses.0.contains_key(&client("2001:db8::1")), "the oldest went");
        assert_eq!(client("2001:db8:0:7::1"), client("2001:db8:0:7:ffff::9"));
        assert_ne!(client("2001:db8:0:7::1"), client("2001:db8:0:8::1"));
    }

    #[test]
    fn only_a_proxy_on_this_machine_is_believed_about_its_client() {
        let of = |peer: &str, told: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in told {
                headers.append("x-forwarded-for", value.parse().expect("a value"));
            }
            Client::of(peer.parse().expect("an address"), &headers)
        };
        assert_eq!(of("127.0.0.1", &[]), client("127.0.0.1"));
        assert_eq!(
            of("127.0.0.1", &["6.6.6.6, 10.0.0.7"]),
            client("10.0.0.7"),
            "what the proxy put last"
        );
        assert_eq!(
            of("::ffff:127.0.0.1", &["6.6.6.6", "10.0.0.7"]),
            client("10.0.0.7")
        );
        assert_eq!(of("10.0.0.1", &["10.0.0.7"]), client("10.0.0.1"));
        assert_eq!(of("127.0.0.1", &["unknown"]), client("127.0.0.1"));
    }
}
