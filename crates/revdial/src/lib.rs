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
//! Deliberately absent: version 1, the framed multiplexer of buildlets older than 23.
//!
//! Source: golang/build `revdial/v2/revdial.go`.
//!
//! [`Duration`]: std::time::Duration

pub mod v2;
