use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::StatusCode;
use ids::Timestamp;
use store::read::TokenRow;
use store::{Store, StoreError};

use crate::guesses::{Client, Guesses, Shown};
use crate::problem::Problem;

/// The one door to the store's tokens: every secret that anybody shows goes through it, so that guesses are counted
/// over all addresses together. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Tokens {
    store: Store,
    guesses: Arc<Mutex<Guesses>>,
    began: Instant,
}

/// Why it cannot be told whether a secret is good.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("too many wrong tokens or keys from this address; wait a minute")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Store> for Tokens {
    fn from(store: Store) -> Tokens {
        Tokens {
            store,
            guesses: Arc::default(),
            began: Instant::now(),
        }
    }
}

impl Tokens {
    /// The token with this secret, unless it was revoked or has expired.
    pub async fn check(
        &self,
        client: Client,
        secret: &str,
        now: Timestamp,
    ) -> Result<Option<TokenRow>, TokenError> {
        self.counted(client, secret, self.store.check_token(secret, now))
            .await
    }

    /// `look` with `shown` counted as a guess: it is not polled when the client has had too many wrong ones.
    pub async fn counted<T, E>(
        &self,
        client: Client,
        shown: &str,
        look: impl Future<Output = Result<Option<T>, E>>,
    ) -> Result<Option<T>, TokenError>
    where
        TokenError: From<E>,
    {
        let shown = Shown::of(shown);
        if !self.guesses().may(self.began.elapsed(), client, shown) {
            return Err(TokenError::TooMany);
        }
        // Dropped before it is settled, it stays counted as wrong, and ends to be so in a minute.
        let found = look.await;
        let good = found.as_ref().ok().map(Option::is_some);
        self.guesses().settle(client, shown, good);
        Ok(found?)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    fn guesses(&self) -> std::sync::MutexGuard<'_, Guesses> {
        self.guesses.lock().expect("no holder panics")
    }
}

impl From<TokenError> for Problem {
    fn from(why: TokenError) -> Problem {
        match why {
            TokenError::TooMany => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_guesses",
                "too many wrong tokens or keys from this address",
            )
            .hint("Wait a minute. A token that was good from here before stays good."),
            TokenError::Store(why) => why.into(),
        }
    }
}
