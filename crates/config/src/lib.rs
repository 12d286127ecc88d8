//! `burrow.toml`: the written form, the checked form, and all that can be wrong between them.
//!
//! Pure: takes texts, gives a [`Config`] or every [`Problem`] at once. Start at [`Config::check`].
//! Nothing past this crate looks at a raw string of the file again.

mod checked;

pub use checked::*;
