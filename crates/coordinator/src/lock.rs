use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};

/// Proof that no other coordinator uses the state folder.
pub struct StateLock {
    _file: File,
}

/// Takes the folder, or says which process has it.
pub fn take(state: &Path) -> anyhow::Result<StateLock> {
    let path = state.join("coordinator.lock");
    let open = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = open.with_context(|| format!("open `{}`", path.display()))?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        // The text is a help; without it the refusal still stands.
        let _ = file.read_to_string(&mut holder);
        bail!(
            "the state folder `{}` is in use by process {}; stop that one, or give another folder with --state-dir",
            state.display(),
            if holder.trim().is_empty() {
                "unknown"
            } else {
                holder.trim()
            }
        );
    }
    file.set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()))
        .context("write the lock")?;
    Ok(StateLock { _file: file })
}
