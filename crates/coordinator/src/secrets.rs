//! Secrets of the farm's own machine, for steps: a file for each, called by its name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::mask::{SECRET_MIN, Secrets};
use crate::{Current, current};

/// Of one file, and files of a folder. Past them something else was put there by mistake.
const LONGEST: u64 = 64 * 1024;
const MOST: usize = 1000;

/// Where they are.
#[derive(Clone)]
pub struct Folder {
    config: Current,
    state: PathBuf,
    /// Values that commands were given by this process: hidden also when the file has another by now.
    given: Arc<Mutex<BTreeSet<Vec<u8>>>>,
}

/// All there are at a moment. No `Debug`: it must not get printed.
pub struct Known(BTreeMap<String, Vec<u8>>);

impl Folder {
    pub fn new(config: Current, state: PathBuf) -> Folder {
        Folder {
            config,
            state,
            given: Arc::default(),
        }
    }

    fn path(&self) -> PathBuf {
        let own = || self.state.join("secrets");
        current(&self.config).farm.secrets.clone().unwrap_or_else(own)
    }

    /// Reads them. None where there is no folder; a file that cannot be read is left out, and missed by who needs it.
    pub async fn read(&self) -> Result<Known, String> {
        let path = self.path();
        let reading = move || match std::fs::read_dir(&path) {
            Ok(entries) => Ok(Known(
                entries
                    .flatten()
                    .take(MOST)
                    .filter_map(|one| secret(&one))
                    .collect(),
            )),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(Known(BTreeMap::new())),
            Err(why) => Err(format!(
                "the secrets in `{}` cannot be read: {why}",
                path.display()
            )),
        };
        let read = tokio::task::spawn_blocking(reading).await;
        read.unwrap_or_else(|_| Err("the secrets cannot be read: the reader panicked".to_owned()))
    }

    /// What is to be hidden in logs: all, since one step may leave behind what another prints.
    pub async fn to_hide(&self) -> Result<Secrets, String> {
        let known = self.read().await?;
        let given = self.given.lock().expect("no holder panics").clone();
        Ok(Secrets::new(known.0.values().chain(&given).map(Vec::as_slice)))
    }

    /// The environment with what it refers to put in. The message names the file, never what is in it.
    pub async fn resolve(&self, env: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
        if !env.iter().any(|(_, value)| value.starts_with("secret:")) {
            return Ok(env.to_vec());
        }
        let known = self.read().await?;
        let path = self.path();
        let one = |(key, value): &(String, String)| {
            let Some(name) = value.strip_prefix("secret:") else {
                return Ok((key.clone(), value.clone()));
            };
            let file = path.join(name);
            let Some(secret) = known.0.get(name) else {
                return Err(format!(
                    "{key} wants the secret `{name}`, which is not there: put it into `{}`",
                    file.display()
                ));
            };
            let text = String::from_utf8(secret.clone())
                .ok()
                .filter(|text| !text.contains('\0'));
            match text {
                Some(text) if text.lines().any(|line| line.len() >= SECRET_MIN) => {
                    self.given
                        .lock()
                        .expect("no holder panics")
                        .insert(secret.clone());
                    Ok((key.clone(), text))
                }
                Some(text) => Err(format!(
                    "the secret in `{}` has {} bytes; it needs {SECRET_MIN} or more to be kept out of logs",
                    file.display(),
                    text.len()
                )),
                None => Err(format!("the secret in `{}` is no text", file.display())),
            }
        };
        env.iter().map(one).collect()
    }
}

/// A file of the folder: its name and what is in it. `None`: it is no secret, or cannot be read.
fn secret(entry: &std::fs::DirEntry) -> Option<(String, Vec<u8>)> {
    let name = entry.file_name().into_string().ok()?;
    // Followed: Kubernetes' are links.
    let meta = std::fs::metadata(entry.path()).ok()?;
    let whole = meta.is_file() && meta.len() <= LONGEST;
    let value = whole.then(|| std::fs::read(entry.path()).ok())??;
    Some((name, without_line_end(value)))
}

fn without_line_end(mut value: Vec<u8>) -> Vec<u8> {
    while value.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        value.pop();
    }
    value
}
