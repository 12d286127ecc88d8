use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ids::{BuilderName, HostType, Limits, RecipeName, RepoName};

/// A whole farm, checked: every name in it leads somewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub farm: Farm,
    pub repos: BTreeMap<RepoName, Repo>,
    pub hosts: BTreeMap<HostType, Host>,
    pub builders: BTreeMap<BuilderName, Builder>,
    pub recipes: BTreeMap<RecipeName, Recipe>,
    pub maintner: Maintner,
}

/// What the mutation log is told of beside the repositories of the farm.
#[derive(Debug, Clone, PartialEq)]
pub struct Maintner {
    /// Whether everybody may read the log, and ask what it tells.
    pub public: bool,
    /// A pubsubhelper that says what changed.
    pub pubsub: Option<String>,
    /// Questions a second of each token; 0 is no limit of ours.
    pub github_rate: u32,
    pub watches: BTreeMap<String, WatchForge>,
}

impl Default for Maintner {
    fn default() -> Maintner {
        Maintner {
            public: false,
            pubsub: None,
            // Source: golang/build `maintner/maintnerd/maintnerd.go`.
            github_rate: 10,
            watches: BTreeMap::new(),
        }
    }
}

/// Projects of a forge that are followed.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchForge {
    pub forge: String,
    pub at: ForgeAt,
    /// As the forge calls them.
    pub projects: Vec<String>,
    pub poll: Duration,
}

/// Where a forge is, and who we are to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForgeAt {
    Git { base: String },
    Gerrit { base: String, cookies: Option<PathBuf> },
    GitHub { api: String, token: Option<SecretAt> },
}

/// Where a secret is read from when it is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretAt {
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Farm {
    pub name: String,
    /// What links in notices begin with, ending in a slash.
    pub public_url: Option<String>,
    pub state_dir: PathBuf,
    /// Pages, JSON, hooks. Loopback unless the file says otherwise.
    pub listen_http: SocketAddr,
    /// The same over TLS, and `/reverse` for machines that dial in. A certificate of our own is made
    /// when none is given.
    pub listen_https: Option<SocketAddr>,
    /// The ssh gateway to lent machines.
    pub listen_ssh: Option<SocketAddr>,
    pub tls: Option<TlsFiles>,
    /// Names that the farm answers to, besides that of `public_url`, `localhost` and addresses.
    pub names: Vec<String>,
    /// Reading needs a token.
    pub closed: bool,
    /// A file for each secret, called by its name. `None`: `secrets` in the state folder.
    pub secrets: Option<PathBuf>,
    pub store: StoreUrl,
    /// Below this much free space in the state folder no build starts. Bytes.
    pub disk_floor: u64,
    /// Logs older than this are deleted; results stay.
    pub keep_logs: Duration,
    /// Most bytes kept of one step's log: head and tail stay, the middle goes.
    pub max_log: u64,
    /// A waiting build that no machine took for this long ends as infra.
    pub wait_limit: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `farm.db` in the state folder.
    Embedded,
    /// `postgres://…`. May hold a password: never printed.
    Postgres(SecretUrl),
}

/// An address that may hold a password. No `Display`; `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub fn new(url: String) -> SecretUrl {
        SecretUrl(url)
    }
    /// For the one place that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretUrl(..)")
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Repo {
    /// Any URL or path that `git fetch` takes.
    pub url: String,
    /// Globs; a branch that matches one is tracked. Empty: the default branch of the upstream only.
    pub branches: Vec<Glob>,
    pub recipe: RecipeName,
    /// How often to look without being told.
    pub poll: Duration,
    /// When a branch is first seen, this many of its newest commits are built. Later ones all are.
    pub backfill: u32,
}

/// A pattern with `*` (any run of characters, `/` included) and `?`; a leading `!` negates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(pub String);

/// As in the images of the original.
pub const SSH_USER: &str = "root";

#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    pub pool: Pool,
    pub env: Vec<(String, String)>,
    /// What every command on it is kept within.
    pub limits: Limits,
    pub owners: Vec<String>,
    pub notes: String,
    /// Who logs in on a lent machine.
    pub ssh_user: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pool {
    /// Children of the coordinator.
    Local { slots: u32 },
    /// Machines that dial in.
    Reverse {
        /// How many should be connected; fewer are shown as missing.
        expect: u32,
        /// Whether the public development key (HMAC under `gophers rule`) opens this host type: for
        /// Go's buildlets on a closed network.
        development_key: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Builder {
    pub host: HostType,
    /// Which (repo, branch) it builds after submit.
    pub builds: Policy,
    /// Instead of the repository's recipe.
    pub recipe: Option<RecipeName>,
    pub env: Vec<(String, String)>,
    pub max_at_once: Option<u32>,
    /// All time limits of its steps times this.
    pub time_scale: u32,
    /// The columns of the grid: builders of one group stand together under one head.
    pub group: String,
    pub order: i64,
    pub notes: String,
    /// Texts or links of known issues: results are shown grey.
    pub known_issues: Vec<String>,
}

/// Ordered rules; the last that matches decides; none matching means no.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Empty: any.
    pub repo: Vec<Glob>,
    /// Empty: any.
    pub branch: Vec<Glob>,
    pub build: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Folder for the source below the working directory.
    pub source: String,
    /// At least one.
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub name: String,
    pub run: Run,
    /// Relative to the working directory.
    pub dir: String,
    pub env: Vec<(String, String)>,
    pub timeout: Duration,
    /// Printing nothing for this long ends the step.
    pub silence: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// `run = ["cargo", "test"]`
    Args(Vec<String>),
    /// `run = "make && make test"`: the machine's shell.
    Shell(String),
}
