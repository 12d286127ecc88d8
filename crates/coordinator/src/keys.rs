use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Context;
use buildlet_api::MasterKey;
use config::Pool;
use ids::HostType;
use pool_reverse::{Credential, IdentityVerdict, KeyCheck, KeyVerdict};
use store::Store;
use tracing::warn;

use crate::{Current, current, engine};

/// The public key of the original's development mode. Source: golang/build `cmd/coordinator/dash.go`.
const DEVELOPMENT_MASTER: &str = "gophers rule";

/// Which keys open which host types: those given out one by one, those derived from the master key,
/// and, where the configuration says so, the development key. And which machines have keys of their own.
pub struct Keys {
    config: Current,
    store: Store,
    master: MasterKey,
    recent: tokio::sync::Mutex<Recent>,
}

impl Keys {
    pub fn new(config: Current, store: Store, master: MasterKey) -> Keys {
        Keys {
            config,
            store,
            master,
            recent: tokio::sync::Mutex::default(),
        }
    }
}

/// How old an answer to [`KeyCheck::still`] may be.
const OLD: Duration = Duration::from_secs(5);

/// Answers that many machines share.
#[derive(Default)]
struct Recent {
    /// Keys that were looked up one by one, until they are old.
    keys: BTreeMap<(HostType, String), KeyVerdict>,
    keys_at: Option<Instant>,
    /// The host types of all machines that are not revoked, by their public keys: one look serves them all.
    identities: HashMap<String, HostType>,
    identities_at: Option<Instant>,
}

fn is_old(at: Option<Instant>) -> bool {
    at.is_none_or(|at| at.elapsed() > OLD)
}

impl Keys {
    async fn check_key(&self, host_type: &HostType, key: &str) -> KeyVerdict {
        let config = current(&self.config);
        let host = config.hosts.get(host_type);
        let development = matches!(
            host.map(|host| &host.pool),
            Some(Pool::Reverse {
                development_key: true,
                ..
            })
        );
        let mut good = self.master.accepts(host_type.as_str(), key);
        if let (true, Ok(public)) = (development, MasterKey::parse(DEVELOPMENT_MASTER.as_bytes())) {
            good |= public.accepts(host_type.as_str(), key);
        }
        if !good {
            good = match self.store.check_key(host_type, key, engine::wall()).await {
                Ok(found) => found.is_some(),
                Err(why) => {
                    warn!(
                        "cannot look up a key for {host_type}: {:#}",
                        anyhow::Error::from(why)
                    );
                    return KeyVerdict::CannotTell;
                }
            };
        }
        match (good, self.dials_in(host_type)) {
            (false, _) => KeyVerdict::Bad,
            (true, true) => KeyVerdict::Good,
            (true, false) => KeyVerdict::UnknownHostType,
        }
    }

    fn dials_in(&self, host_type: &HostType) -> bool {
        let config = current(&self.config);
        let pool = config.hosts.get(host_type).map(|host| &host.pool);
        matches!(pool, Some(Pool::Reverse { .. }))
    }

    async fn look_up(&self, public_key: &str) -> IdentityVerdict {
        let row = match self.store.identity(public_key).await {
            Ok(Some(row)) => row,
            Ok(None) => return IdentityVerdict::Unknown,
            Err(why) => {
                warn!("cannot look up a machine: {:#}", anyhow::Error::from(why));
                return IdentityVerdict::CannotTell;
            }
        };
        if row.revoked.is_some() {
            return IdentityVerdict::Revoked;
        }
        if !self.dials_in(&row.host_type) {
            return IdentityVerdict::UnknownHostType(row.host_type);
        }
        self.store.identity_used(&row, engine::wall()).await;
        IdentityVerdict::Known {
            name: row.name,
            host_type: row.host_type,
        }
    }

    async fn still_enrolled(&self, host_type: &HostType, public_key: &str) -> KeyVerdict {
        // Held over the look, so that of many who ask at once one looks.
        let mut recent = self.recent.lock().await;
        if is_old(recent.identities_at) {
            match self.store.identities().await {
                Ok(rows) => {
                    let good = rows.into_iter().filter(|row| row.revoked.is_none());
                    recent.identities = good.map(|row| (row.public_key, row.host_type)).collect();
                    recent.identities_at = Some(Instant::now());
                }
                Err(why) => {
                    warn!("cannot look up machines: {:#}", anyhow::Error::from(why));
                    return KeyVerdict::CannotTell;
                }
            }
        }
        match recent.identities.get(public_key) {
            Some(_) if !self.dials_in(host_type) => KeyVerdict::UnknownHostType,
            Some(known) if known == host_type => KeyVerdict::Good,
            _ => KeyVerdict::Bad,
        }
    }
}

impl KeyCheck for Keys {
    fn check<'a>(
        &'a self,
        host_type: &'a HostType,
        key: &'a str,
    ) -> Pin<Box<dyn Future<Output = KeyVerdict> + Send + 'a>> {
        Box::pin(self.check_key(host_type, key))
    }

    fn identity<'a>(
        &'a self,
        public_key: &'a str,
    ) -> Pin<Box<dyn Future<Output = IdentityVerdict> + Send + 'a>> {
        Box::pin(self.look_up(public_key))
    }

    fn still<'a>(
        &'a self,
        host_type: &'a HostType,
        shown: &'a Credential,
    ) -> Pin<Box<dyn Future<Output = KeyVerdict> + Send + 'a>> {
        Box::pin(async move {
            let key = match shown {
                Credential::Identity(public_key) => return self.still_enrolled(host_type, public_key).await,
                Credential::Key(key) => key,
            };
            let mut recent = self.recent.lock().await;
            if is_old(recent.keys_at) {
                recent.keys.clear();
                recent.keys_at = Some(Instant::now());
            }
            let asked = (host_type.clone(), key.clone());
            if let Some(verdict) = recent.keys.get(&asked) {
                return *verdict;
            }
            let verdict = self.check_key(host_type, key).await;
            if verdict != KeyVerdict::CannotTell {
                recent.keys.insert(asked, verdict);
            }
            verdict
        })
    }
}

/// The farm's master key, made at its first start: `master-key` in the state folder, for its owner alone.
pub fn master(state: &Path) -> anyhow::Result<MasterKey> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let path = state.join("master-key");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            let mut bytes = [0; 32];
            let mut random = fs::File::open("/dev/urandom").context("get randomness")?;
            random.read_exact(&mut bytes).context("get randomness")?;
            let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            // Whole or not at all: half a key would be taken for another one, or for none.
            let fresh = state.join("master-key.new");
            let write = || -> std::io::Result<()> {
                // Of a farm that died here, if any.
                let _ = fs::remove_file(&fresh);
                let mut file = fs::File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&fresh)?;
                std::io::Write::write_all(&mut file, text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&fresh, &path)?;
                fs::File::open(state)?.sync_all()
            };
            write().with_context(|| format!("write the master key `{}`", path.display()))?;
            text
        }
        Err(why) => return Err(why).with_context(|| format!("read the master key `{}`", path.display())),
    };
    MasterKey::parse(text.as_bytes()).with_context(|| format!("use the master key `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_master_key_is_made_once_whole_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        // Of a farm that died while it made one.
        fs::write(folder.path().join("master-key.new"), "4f").expect("a file");
        let key = master(folder.path()).expect("made");
        let path = folder.path().join("master-key");
        assert_eq!(fs::read_to_string(&path).expect("it is there").len(), 64);
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        assert!(!folder.path().join("master-key.new").exists());
        let again = master(folder.path()).expect("read");
        assert_eq!(key.builder_key("rack"), again.builder_key("rack"));
    }
}
