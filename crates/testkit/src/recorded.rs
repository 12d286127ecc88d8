//! What real servers said, recorded: kept beside the repository, not in it.

use std::path::{Path, PathBuf};

use crate::peer::REQUIRE;

/// Where the recordings are, if not in `../shared/recorded` beside the repository.
pub const RECORDED: &str = "BURROW_RECORDED";

/// The folder of that name among the recordings. `None`, said aloud, where there is none.
///
/// # Panics
/// If it is not there, with [`REQUIRE`] set.
pub fn recorded(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/recorded");
    let all = std::env::var_os(RECORDED).map_or_else(beside, PathBuf::from);
    let folder = all.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let missing = format!(
        "there is no `{}`; set {RECORDED} to where the recordings are",
        folder.display()
    );
    assert!(std::env::var_os(REQUIRE).is_none(), "{missing}");
    eprintln!("skipped: {missing}");
    None
}
