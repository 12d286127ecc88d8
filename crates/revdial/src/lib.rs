//! The reverse-dial protocol: how a coordinator gets connections to a buildlet that dialled in.
//!
//! Pure: no socket, no clock, no randomness. Bytes come in as slices, times as the [`Duration`]
//! since any fixed moment, random identifiers from the caller; what comes out is lines to send
//! and events to act on.
//!
//! [`v2`] is what buildlets of version 23 and up speak: one control connection carries JSON lines,
//! and each connection the coordinator wants is dialled back by the buildlet. Start at
//! [`v2::Dialer`] (the coordinator) or [`v2::Listener`] (the buildlet).
//!
//! [`v1`] is what coordinators and buildlets older than that speak: all connections multiplexed over one.
//! Coordinators speak first in both, and the first byte tells which it is: `{` or `N`.
//!
//! [`proof`] is how machines with a key of their own register; burrow alone has it.
//!
//! Source: golang/build `revdial/v2/revdial.go`, `revdial/revdial.go` (2018).
//!
//! [`Duration`]: std::time::Duration

pub mod proof;
pub mod v1;
pub mod v2;
