//! What a Gerrit server says, and how it is asked.
//!
//! Gerrit keeps all it knows of a change in git: `refs/changes/NN/N/1`, `…/2` are its patch sets, and
//! `refs/changes/NN/N/meta` is a chain of commits in which each step of its life is told. So most is
//! learned by git: [`refs`] reads the listing, [`Objects`] the commits, [`notedb`] what a step says and
//! [`Change`] what all steps make of a change. The little that git does not tell is asked by [`rest`].
//!
//! All reading is pure; [`Objects`] and [`Remote`] run git, [`rest::Client`] asks by HTTP. Start at [`notedb::Step`].

pub mod credentials;
pub mod notedb;
mod objects;
pub mod refs;
mod remote;
pub mod rest;
mod state;

pub use objects::{Object, Objects, Stat};
pub use remote::Remote;
pub use state::{Attention, Change, Message, Part, PatchSet, Vote};
