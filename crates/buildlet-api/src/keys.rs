//! The keys that the original's buildlets and users show: HMAC-MD5 of a name under one master key.
//!
//! Source: golang/build `cmd/coordinator/dash.go`, `cmd/genbuilderkey`.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use subtle::ConstantTimeEq;

/// The secret that all builder keys are made from. Never printed.
#[derive(Clone)]
pub struct MasterKey(Box<[u8]>);

/// An empty master key would make the empty string a good key in the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the master key is empty; wanted at least one byte that is not white space")]
pub struct EmptyMasterKey;

impl MasterKey {
    /// `file` is the content of a key file; white space around the key is not part of it.
    pub fn parse(file: &[u8]) -> Result<MasterKey, EmptyMasterKey> {
        match file.trim_ascii() {
            [] => Err(EmptyMasterKey),
            key => Ok(MasterKey(key.into())),
        }
    }

    /// The key of a builder, a host type or `user-NAME`: 32 lower-case hex digits.
    pub fn builder_key(&self, name: &str) -> String {
        let mut mac = Hmac::<Md5>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        mac.update(name.as_bytes());
        let digest = mac.finalize().into_bytes();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether `offered`, white space around it aside, is the key of `name`. Takes equally long for
    /// every wrong key.
    pub fn accepts(&self, name: &str, offered: &str) -> bool {
        let wanted = self.builder_key(name);
        wanted.as_bytes().ct_eq(offered.trim().as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_original() {
        let master = MasterKey::parse(b"gophers rule\n").unwrap();
        for (name, key) in [
            ("host-linux-amd64-localdev", "4d8129e2963df29b29cab65e108397d1"),
            ("host-test", "23b7aaf3a8eda20c9e3182c17b2ce9ed"),
            ("user-alice", "c94d9788d452982477a143b8e8849419"),
            ("linux-amd64", "8b3dbf220b21848be6884e982b34702e"),
            ("host-linux-arm-scaleway", "f6da853c63037750b5304618bc9ad7ab"),
            ("user-amy", "4586588ac04a42b760c1296f7a6c1ee2"),
        ] {
            assert_eq!(master.builder_key(name), key);
            assert!(master.accepts(name, &format!("{key}\n")));
            assert!(!master.accepts("other", key));
            assert!(!master.accepts(name, &key[1..]));
            assert!(!master.accepts(name, ""));
        }
    }

    #[test]
    fn an_empty_master_key_is_refused() {
        assert_eq!(MasterKey::parse(b"").err(), Some(EmptyMasterKey));
        assert_eq!(MasterKey::parse(b" \n\t").err(), Some(EmptyMasterKey));
    }
}
