//! HTTP to a running farm: the JSON of its pages, and logs by offset.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::{farm_file, show};

/// In the state folder: where the farm that runs on it is. `{"url": …, "pid": …}`
pub const SERVER_FILE: &str = "server.json";
/// In the state folder: the token of whoever may read it.
pub const TOKEN_FILE: &str = "token";

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Of a whole answer; a log takes as long as it keeps coming.
const DEADLINE: Duration = Duration::from_secs(10);

/// A page as JSON is not larger. Bytes.
const MOST: usize = 16 << 20;

pub struct Server {
    url: String,
    token: Option<String>,
    http: reqwest::Client,
}

/// One build, as lists have it.
#[derive(Debug, Clone, Deserialize)]
pub struct Build {
    #[serde(rename = "build", alias = "id")]
    pub id: u64,
    pub repo: String,
    pub commit: String,
    pub builder: String,
    /// `waiting`, `running`, `passed`, `failed`, `infra`, `cancelled`
    #[serde(rename = "state", alias = "status")]
    pub status: String,
    pub attempts: u32,
    #[serde(default)]
    pub flaky: bool,
    /// Why it ended so; empty where there is nothing to say.
    #[serde(default)]
    pub reason: String,
    /// Of the latest attempt; absent before one ended.
    #[serde(default)]
    pub took_ms: Option<u64>,
}

/// One attempt of a build: which steps there are to read.
#[derive(Debug, Clone, Deserialize)]
pub struct Attempt {
    pub n: u32,
    #[serde(default)]
    pub ended: Option<Value>,
    #[serde(default)]
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    pub index: u32,
    pub name: String,
    #[serde(default)]
    pub command: String,
    #[serde(default)]
    pub started: Option<Value>,
    #[serde(default)]
    pub ended: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Detail {
    pub build: Build,
    /// Oldest first.
    pub attempts: Vec<Attempt>,
}

impl Build {
    pub fn is_done(&self) -> bool {
        !matches!(self.status.as_str(), "waiting" | "running")
    }

    pub fn passed(&self) -> bool {
        self.status == "passed"
    }
}

impl Server {
    /// The farm that the command line means, or the one on the state folder.
    pub fn of(global: &Global) -> Result<Server, Failure> {
        let state_dir = farm_file::state_dir(global)?;
        let told = || {
            let text = std::fs::read_to_string(state_dir.join(SERVER_FILE)).ok()?;
            let file: Value = serde_json::from_str(&text).ok()?;
            Some(file.get("url")?.as_str()?.to_owned())
        };
        let token = || {
            let text = std::fs::read_to_string(state_dir.join(TOKEN_FILE)).ok()?;
            Some(text.trim().to_owned())
        };
        match &global.server {
            // The token in the state folder is for its own farm, not for any that is named.
            Some(url) if told().as_deref() != Some(url.as_str()) => Server::at(url, global.token.clone()),
            Some(url) => Server::at(url, global.token.clone().or_else(token)),
            None => {
                let own = told();
                let token = global
                    .token
                    .clone()
                    .or_else(|| own.as_ref().and_then(|_| token()));
                Server::at(own.as_deref().unwrap_or(DEFAULT_URL), token)
            }
        }
    }

    pub fn at(url: &str, token: Option<String>) -> Result<Server, Failure> {
        let wrong = || {
            Failure::usage(format!("`{}` is no address of a farm", show::plain(url)))
                .hint("wanted http://HOST:PORT or https://HOST")
        };
        let parsed = reqwest::Url::parse(url).map_err(|_| wrong())?;
        if !matches!(parsed.scheme(), "http" | "https")
            || parsed.host().is_none()
            || !parsed.username().is_empty()
        {
            return Err(wrong());
        }
        if token
            .as_ref()
            .is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(Failure::usage("the token holds what no token holds")
                .hint("wanted `bt_` and letters and digits"));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(DEADLINE)
            .read_timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("burrow/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::new(format!("cannot set up HTTP: {error}")))?;
        Ok(Server {
            url: url.trim_end_matches('/').to_owned(),
            token,
            http,
        })
    }

    pub async fn builds(&self, query: &[(&str, String)]) -> Result<Vec<Build>, Failure> {
        let page = self.json("/builds", query).await?;
        let builds = page.get("builds").cloned().unwrap_or_default();
        serde_json::from_value(builds).map_err(|error| self.strange("/builds", &error.to_string()))
    }

    pub async fn build(&self, build: u64) -> Result<Detail, Failure> {
        let path = format!("/build/{build}");
        let page = self.json(&path, &[]).await?;
        serde_json::from_value(page).map_err(|error| self.strange(&path, &error.to_string()))
    }

    /// The JSON of a page.
    pub async fn json(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let answer = self.send(Method::GET, path, query).await?;
        self.read_json(path, answer).await
    }

    /// Asks for something to be done.
    pub async fn post(&self, path: &str) -> Result<Value, Failure> {
        let answer = self.send(Method::POST, path, &[]).await?;
        self.read_json(path, answer).await
    }

    /// A step's log from byte `offset` on, as it stands; to be read in pieces.
    pub async fn log(&self, build: u64, attempt: u32, step: u32, offset: u64) -> Result<Response, Failure> {
        let query = [
            ("attempt", attempt.to_string()),
            ("step", step.to_string()),
            ("offset", offset.to_string()),
        ];
        self.send(Method::GET, &format!("/build/{build}/log"), &query)
            .await
    }

    /// Sends a form; the answer is to be read in pieces.
    pub async fn form(&self, path: &str, form: &[(&str, &str)]) -> Result<Response, Failure> {
        self.finish(path, self.request(Method::POST, path).form(form))
            .await
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// What is wrong when an answer breaks off.
    pub fn broke(&self, error: &reqwest::Error) -> Failure {
        self.unreachable(error)
    }

    async fn send(&self, method: Method, path: &str, query: &[(&str, String)]) -> Result<Response, Failure> {
        self.finish(path, self.request(method, path).query(query)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .header("accept", "application/json, text/plain;q=0.9");
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn finish(&self, path: &str, request: RequestBuilder) -> Result<Response, Failure> {
        let answer = match tokio::time::timeout(DEADLINE, request.send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => return Err(self.silent()),
        };
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(self.refused(path, answer).await)
    }

    pub async fn read_json(&self, path: &str, answer: Response) -> Result<Value, Failure> {
        let text = self.read(path, answer).await?;
        serde_json::from_slice(&text).map_err(|error| self.strange(path, &error.to_string()))
    }

    async fn read(&self, path: &str, mut answer: Response) -> Result<Vec<u8>, Failure> {
        let read = async {
            let mut text = Vec::new();
            while let Some(piece) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
                text.extend_from_slice(&piece);
                if text.len() > MOST {
                    return Err(self.strange(path, "it is larger than 16 MiB"));
                }
            }
            Ok(text)
        };
        tokio::time::timeout(DEADLINE, read)
            .await
            .unwrap_or_else(|_| Err(self.silent()))
    }

    /// The farm's own words where it has some.
    async fn refused(&self, path: &str, answer: Response) -> Failure {
        let status = answer.status();
        let text = self.read(path, answer).await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&text).unwrap_or_default();
        let word = |key: &str| {
            let text = body.get("error")?.get(key)?.as_str()?;
            (!text.is_empty()).then(|| show::plain(text))
        };
        let message = word("message").unwrap_or_else(|| {
            let first: String = String::from_utf8_lossy(&text)
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(400)
                .collect();
            format!("{}{path} answers {status}: {}", self.url, show::plain(&first))
        });
        let failure = Failure::new(message);
        match (status, word("hint")) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => failure.hint(
                "`burrow token new NAME --role contributor` makes a token; give it with --token or BURROW_TOKEN",
            ),
            (_, Some(hint)) => failure.hint(hint),
            (_, None) => failure,
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        // The innermost cause is the one that says something: `Connection refused (os error 111)`.
        let cause = crate::gomote::plainly(error);
        if error.is_connect() || error.is_request() {
            return self.away(&cause);
        }
        Failure {
            exit: Exit::NotReachable,
            ..Failure::new(format!("the answer of {} broke off: {cause}", self.url)).hint("try again")
        }
    }

    fn silent(&self) -> Failure {
        self.away(&format!("no answer in {} s", DEADLINE.as_secs()))
    }

    fn away(&self, why: &str) -> Failure {
        let failure = Failure::new(format!("no farm answers at {}: {why}", self.url)).hint(
            "is `burrow up` running? another address: --server URL, or --state-dir DIR of the farm here",
        );
        Failure {
            exit: Exit::NotReachable,
            ..failure
        }
    }

    pub fn strange(&self, path: &str, why: &str) -> Failure {
        Failure::new(format!(
            "cannot make sense of the answer of {}{path}: {why}",
            self.url
        ))
        .hint("is it a burrow, and of the same version as this program?")
    }
}
