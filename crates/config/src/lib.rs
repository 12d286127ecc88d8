//! `burrow.toml`: the written form, the checked form, and all that can be wrong between them.
//!
//! Pure: takes texts, gives a [`Config`] or every [`Problem`] at once. Start at [`Config::check`].
//! Nothing past this crate looks at a raw string of the file again. A repository without a file
//! gets a [`Config`] from what [`detect()`] finds in it.

mod check; // from that tree to the checked form
mod checked; // what the rest of the farm sees
mod decide; // globs and policies: what builds what
mod detect; // recipes for repositories that bring no configuration
mod diff; // what a reload changes
mod keys; // every key there is
mod mask; // what must not be printed
mod nearest; // "did you mean"
mod problem; // a mistake, and how it is shown
#[cfg(test)]
mod tests;
mod text; // the checked form as a file again
mod units; // durations and sizes
mod written; // the files as one tree that knows its places

pub use check::{Checked, Defaults, os_arch};
pub use checked::*;
pub use detect::{Detected, detect, nothing_detected};
pub use diff::diff;
pub use keys::key_reference;
pub use problem::{Problem, Problems, SourceFile};
pub use text::to_toml;
