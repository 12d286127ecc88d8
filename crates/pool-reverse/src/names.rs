//! What a reverse machine is called.

use ids::MachineId;

/// The name number `n`, from 1, for a machine that gave this host name and, if it is one of ours,
/// this instance: `mac7`, `mac7.2`; `mac7.4f2a91c0`, `mac7.4f2a91c0.2`.
pub(crate) fn machine_name(hostname: &str, instance: Option<&str>, n: usize) -> MachineId {
    let mut name = plain(hostname, 150);
    if let Some(instance) = instance {
        name.push('.');
        name.push_str(&plain(instance, 8));
    }
    if n > 1 {
        name.push_str(&format!(".{n}"));
    }
    MachineId::parse(&name).expect("printable ASCII of fewer than 200 characters")
}

/// The address without its port: `10.0.0.7:1234`, `[::1]:1234`.
pub(crate) fn without_port(peer: &str) -> &str {
    match peer.rsplit_once(':') {
        Some((address, port)) if port.bytes().all(|b| b.is_ascii_digit()) => address,
        _ => peer,
    }
}

fn plain(text: &str, limit: usize) -> String {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let plain: String = text
        .chars()
        .take(limit)
        .map(|c| if ok(c) { c } else { '-' })
        .collect();
    if plain.is_empty() {
        "unnamed".to_owned()
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_whatever_a_machine_calls_itself() {
        let name = |hostname, instance, n| machine_name(hostname, instance, n).to_string();
        assert_eq!(name("mac7", None, 1), "mac7");
        assert_eq!(name("mac7", None, 2), "mac7.2");
        assert_eq!(name("mac7", Some("4f2a91c0ffee"), 1), "mac7.4f2a91c0");
        assert_eq!(name("a b/c\nü<", Some(""), 3), "a-b-c---.unnamed.3");
        assert_eq!(name(&"x".repeat(500), Some("4f2a91c0ffee"), 1).len(), 159);
    }

    #[test]
    fn a_port_is_no_part_of_an_address() {
        assert_eq!(without_port("10.0.0.7:1234"), "10.0.0.7");
        assert_eq!(without_port("[::1]:1234"), "[::1]");
        assert_eq!(without_port("somewhere"), "somewhere");
    }
}
