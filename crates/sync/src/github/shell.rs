use std::time::{Duration, Instant};

use github::{AskError, Budget, Client};
use maintpb::Message;
use maintpb::borrowed::{self, View};

use super::poll::{Poll, Round, Trouble};
use crate::Log;

#[derive(Debug, thiserror::Error)]
pub enum GitHubError<E> {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// Nothing after it was written.
    #[error("the log takes nothing")]
    Log(#[source] E),
}

/// Asks GitHub for what its sync wants to know. The budget is that of the token.
pub struct GitHub<'a> {
    pub client: &'a Client,
    pub budget: &'a tokio::sync::Mutex<Budget>,
    /// Of the budget's clock.
    pub started: Instant,
}

impl GitHub<'_> {
    /// Runs a round to its end. How many mutations were written. After an error the next round goes on
    /// where this one was.
    pub async fn round<L: Log>(
        &self,
        poll: &mut Poll,
        round: Round,
        log: &mut L,
    ) -> Result<usize, GitHubError<L::Error>> {
        let mut written = 0;
        poll.start(round);
        while let Some(question) = poll.ask() {
            self.wait().await;
            let answer = self
                .client
                .ask(&question.address, question.etag.as_deref())
                .await?;
            self.budget.lock().await.learn(self.now(), &answer);
            if answer.is_limited() {
                continue;
            }
            if let Some(mutation) = poll.answer(&answer)? {
                let bytes = mutation.encode_to_vec();
                let told = std::slice::from_ref(&bytes);
                log.append(told).await.map_err(GitHubError::Log)?;
                poll.apply(&borrowed::Mutation::decode(&bytes).expect("what was encoded can be decoded"));
                written += 1;
            }
        }
        poll.finish();
        Ok(written)
    }

    /// Until the budget lets us ask.
    async fn wait(&self) {
        loop {
            let taken = self.budget.lock().await.take(self.now());
            match taken {
                Ok(()) => return,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}
