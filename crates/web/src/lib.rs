//! What every page shares: the accept loop, the page shell, sign-in, errors, live events.
//!
//! [`serve`] owns connections: plain and TLS, HTTP/1.1 and HTTP/2, and hands the few that are no
//! HTTP after their first head (machines that dial in) to a [`RawHandler`]. [`Site::wrap`] puts
//! around a router what all pages need: JSON at the same URL, who is asking, the guard against
//! requests forged by other sites, error pages, compression. [`Site::fence`] stands around all that a farm answers: its
//! names, who may read it, what browsers are told. Start at either.
//!
//! Knows no page of its own but sign-in and the error pages; never writes to the store.

mod head; // the first request head of a connection
mod listen; // the accept loop
mod stream; // one connection, with bytes put back
mod tls; // certificates

mod assets;
mod events; // server-sent events
mod page; // the page shell
mod problem; // errors for people and for programs
mod say; // times, durations and addresses as people read them
mod sign_in;
mod site; // what goes around every route
mod visit; // who asks, for what, in which form

mod fence; // what goes around every address, pages or not
mod guesses; // how often one may be wrong about a secret
mod table; // routes as a list that can be looked at
mod tokens; // the one door to tokens

pub use events::{EVENT_LIMIT, events};
pub use guesses::Client;
pub use head::RawHead;
pub use listen::{ConnectionInfo, Door, Limits, RawHandler, Server, serve};
pub use page::{Page, Section, icon};
pub use problem::Problem;
pub use say::{Moment, ago, bytes, duration, plural, segment, ticked};
pub use site::{Frame, Site, Uncompressed};
pub use stream::RawStream;
pub use table::{Table, paths, router};
pub use tls::{TlsError, fingerprint, tls_from_files, tls_of_our_own};
pub use tokens::{TokenError, Tokens};
pub use visit::{Visit, Wants, Who};
