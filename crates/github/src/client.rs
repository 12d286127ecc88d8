use reqwest::header::{AUTHORIZATION, IF_NONE_MATCH, USER_AGENT};

use crate::Answer;

/// An answer larger than this is refused. Source: a page of 100 issues with bodies of 64 KiB is 7 MiB.
const MAX_BODY: usize = 32 << 20;

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the answer to `{address}` is larger than {MAX_BODY} bytes")]
    TooLarge { address: String },
    #[error("cannot ask GitHub")]
    Transport(#[from] reqwest::Error),
}

/// Asks. It follows nowhere and waits for nothing: who uses it asks a [`crate::Budget`] first.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// `http`: one that follows no redirects. `base`: `https://api.github.com`, without a slash at the end.
    pub fn new(http: reqwest::Client, base: &str, token: Option<String>) -> Client {
        Client {
            http,
            base: base.to_owned(),
            token,
        }
    }

    /// `address`: whole, as GitHub gave it, or from the slash on. The token goes nowhere but to GitHub.
    pub async fn ask(&self, address: &str, etag: Option<&str>) -> Result<Answer, AskError> {
        let whole = match address.starts_with('/') {
            true => format!("{}{address}", self.base),
            false => address.to_owned(),
        };
        let ours = whole
            .strip_prefix(&self.base)
            .is_some_and(|rest| rest.starts_with('/'));
        let mut request = self
            .http
            .get(&whole)
            .header(USER_AGENT, "burrow")
            .header("Accept", "application/vnd.github+json")
            .header("X-GitHub-Api-Version", "2022-11-28");
        if let Some(token) = self.token.as_ref().filter(|_| ours) {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let mut answer = request.send().await?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_BODY {
                return Err(AskError::TooLarge { address: whole });
            }
        }
        let headers = answer.headers();
        Ok(Answer::new(answer.status().as_u16(), body, |name| {
            headers.get(name).and_then(|value| value.to_str().ok())
        }))
    }
}
