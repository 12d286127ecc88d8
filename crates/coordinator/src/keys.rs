use std::fs;
use std::path::Path;
use std::pin::Pin;

use anyhow::Context;
use buildlet_api::MasterKey;
use config::Pool;
use ids::HostType;
use pool_reverse::{KeyCheck, KeyVerdict};
use store::Store;
use tracing::warn;

use crate::{Current, current, engine};

/// The public key of the original's development mode. Source: golang/build `cmd/coordinator/dash.go`.
const DEVELOPMENT_MASTER: &str = "gophers rule";

/// Which keys open which host types: those given out one by one, those derived from the master key,
/// and, where the configuration says so, the development key.
pub struct Keys {
    config: Current,
    store: Store,
    master: MasterKey,
}

impl Keys {
    pub fn new(config: Current, store: Store, master: MasterKey) -> Keys {
        Keys {
            config,
            store,
            master,
        }
    }
}

impl KeyCheck for Keys {
    fn check<'a>(
        &'a self,
        host_type: &'a HostType,
        key: &'a str,
    ) -> Pin<Box<dyn Future<Output = KeyVerdict> + Send + 'a>> {
        Box::pin(async move {
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
            let reverse = matches!(host.map(|host| &host.pool), Some(Pool::Reverse { .. }));
            match (good, reverse) {
                (false, _) => KeyVerdict::Bad,
                (true, true) => KeyVerdict::Good,
                (true, false) => KeyVerdict::UnknownHostType,
            }
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
            let mut file = fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            std::io::Write::write_all(&mut file, text.as_bytes()).context("write the master key")?;
            file.sync_all().context("write the master key")?;
            text
        }
        Err(why) => return Err(why).with_context(|| format!("read the master key `{}`", path.display())),
    };
    MasterKey::parse(text.as_bytes()).with_context(|| format!("use the master key `{}`", path.display()))
}
