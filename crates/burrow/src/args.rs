use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::corpus::AsOf;
use clap::{Parser, Subcommand, ValueEnum};
use ids::{BuildId, BuilderName, HostType, RepoName};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  an error; stderr says which
  2  the command line is wrong
  3  a build that was waited for did not pass
  4  no farm answers at the server's address";

const EXAMPLES: &str = "\
Examples:
  burrow up                          build the repository you stand in
  burrow up --demo                   try it on a small repository made for it
  burrow serve --config /etc/burrow  run a farm as a service
  burrow builds --status failed      what is broken
  burrow logs 17 --follow            watch build 17, exit 3 if it fails";

/// A build farm: watches git repositories, builds every commit on every builder, keeps and shows
/// what came of it.
#[derive(Debug, Parser)]
#[command(name = "burrow", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), subcommand_required = true)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// Address of the farm [default: what `up` wrote to the state folder, else http://127.0.0.1:8080]
    #[arg(long, global = true, env = "BURROW_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Token for what not everyone may do [default: the file `token` in the state folder]
    #[arg(
        long,
        global = true,
        env = "BURROW_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Folder with all that the farm keeps [default: what the configuration says, else ./.burrow]
    #[arg(long, global = true, env = "BURROW_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Say more in the log; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: Color,
    /// Write the log as JSON, one object a line
    #[arg(long, global = true)]
    pub log_json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    pub fn on_stderr(self) -> bool {
        self.on(std::io::stderr().is_terminal())
    }

    pub fn on_stdout(self) -> bool {
        self.on(std::io::stdout().is_terminal())
    }

    /// <https://no-color.org>
    fn on(self, terminal: bool) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole farm here, without configuration if need be
    ///
    /// Without `--config` it uses ./burrow.toml; without that, it builds the git repository it
    /// stands in, as the files there suggest, and says what it chose. Ctrl-C ends it cleanly, a
    /// second one at once.
    #[command(after_help = "\
Examples:
  burrow up                                     build the repository you stand in
  burrow up --demo                              a small repository with good, broken and flaky commits
  burrow up --repo https://example.org/w.git    build another repository
  burrow up --config farm.toml --listen 127.0.0.1:9000")]
    Up(Up),
    /// Run a farm as a service, from a configuration
    ///
    /// SIGTERM and SIGINT end it cleanly; changed files, or SIGHUP, make it read them again.
    #[command(after_help = "Example:\n  burrow serve --config /etc/burrow --log-json")]
    Serve(Serve),
    /// Check configuration files without starting anything
    #[command(after_help = "\
Examples:
  burrow check                    check ./burrow.toml
  burrow check farm.d             all *.toml of a folder, as one configuration
  burrow check --print-detected   what `up` would do here, as a burrow.toml")]
    Check(Check),
    /// What the farm is doing
    #[command(after_help = "Example:\n  burrow status --json")]
    Status,
    /// List builds, newest first
    #[command(after_help = "\
Examples:
  burrow builds --repo widget --status failed
  burrow builds --limit 5 --wait     wait until they are done, exit 3 if one did not pass")]
    Builds(Builds),
    /// Print what a build printed
    #[command(after_help = "\
Examples:
  burrow logs 17               all steps of the latest attempt
  burrow logs 17 --step 1      the second step only
  burrow logs 17 --follow      as it is printed; exit 3 if the build does not pass")]
    Logs(Logs),
    /// Build again; needs a contributor's token
    #[command(after_help = "Example:\n  burrow retry 17 18 --wait")]
    Retry(Retry),
    /// Stop builds that wait or run; needs a contributor's token
    #[command(after_help = "Example:\n  burrow cancel 17")]
    Cancel(Cancel),
    /// Machines of the farm, lent to you
    ///
    /// Needs a contributor's token; its name is the owner. A machine that nobody uses for half an hour goes back to work.
    /// Where INSTANCE is to be named it can be left out while you have only one, and `user-NAME-` in front of it always.
    Gomote(crate::gomote::Gomote),
    /// Machines with keys of their own: make them known, list them, revoke them
    ///
    /// A machine makes its key itself, and shows a token once to have it known. Works on the store itself, so whoever may
    /// write it may use it; the farm need not run. A running farm lets no revoked machine stay for longer than a minute.
    Enroll(crate::enroll::Enroll),
    /// Buildlets that machines fetch from this farm and update themselves to
    ///
    /// Machines run stage0, which fetches what the farm's owner signed. Sign where the key is, publish on the farm; machines that
    /// idle run it within minutes, one first, the others when that one is back.
    Buildlets(crate::buildlets::Buildlets),
    /// Keys that many machines share, as those of Go's buildlets do
    Key(Key),
    /// Tokens with which people retry and cancel
    Token(Token),
    /// Write all that the farm keeps to one file, while it runs or not
    ///
    /// Every row of the store, the keys and the step logs, as of one moment. It holds secrets: only its
    /// owner may read it. Mirrors are left out, the farm fetches them again.
    #[command(after_help = "Example:\n  burrow backup --config /etc/burrow farm-2026-11-24.tgz")]
    Backup(Backup),
    /// Make a farm of a backup, in an empty state folder
    ///
    /// The file is checked whole before anything is made. The configuration says which store is
    /// filled, SQLite or PostgreSQL, whichever it was taken from.
    #[command(after_help = "Example:\n  burrow restore --config /etc/burrow farm-2026-11-24.tgz")]
    Restore(Restore),
    /// Copy the store of a farm that does not run to PostgreSQL
    #[command(
        after_help = "Example:\n  burrow move-store --config /etc/burrow --to postgres://farm@db.example/farm"
    )]
    MoveStore(MoveStore),
    /// Serve the log of issues, changes and commits, one of its own or a copy of another's
    ///
    /// Followers, those of golang/build too, find it at /logs, and programs ask it by gRPC
    /// (apipb.MaintnerService). With a configuration it is told what the forges say; `/` shows how each
    /// source is doing.
    #[command(after_help = "\
Examples:
  burrow maintnerd --log DIR                                              serve the log in a folder
  burrow maintnerd --config burrow.toml                                   tell it what [maintner] watches, and serve it
  burrow maintnerd --log DIR --follow https://maintner.example.org/logs   keep a copy, and serve it on")]
    Maintnerd(Maintnerd),
    /// Look into a log of issues, changes and commits
    Corpus(CorpusArgs),
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  burrow completions bash > ~/.local/share/bash-completion/completions/burrow"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub struct Up {
    /// Build a small repository made for showing burrow
    #[arg(long, conflicts_with_all = ["config", "repo"])]
    pub demo: bool,
    /// Configuration: a file, or a folder of *.toml
    #[arg(long, value_name = "FILE|DIR")]
    pub config: Option<PathBuf>,
    /// Repository to build
    #[arg(long, value_name = "PATH_OR_URL", conflicts_with = "config")]
    pub repo: Option<String>,
    /// Where to serve pages [default: what the configuration says, else the first free port from 127.0.0.1:8080 on]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// How many builds at once on this machine [default: what the configuration says, else its processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub slots: Option<u32>,
    /// Do not open a browser
    #[arg(long)]
    pub open_nothing: bool,
}

#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Configuration: a file, or a folder of *.toml
    #[arg(long, value_name = "FILE|DIR")]
    pub config: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Backup {
    /// The file to write; must not be there
    pub file: PathBuf,
    /// Configuration that says where store and state are [default: ./burrow.toml if there]
    #[arg(long, value_name = "FILE|DIR")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Restore {
    /// What `burrow backup` wrote
    pub file: PathBuf,
    /// Configuration that says where store and state are to be [default: ./burrow.toml if there]
    #[arg(long, value_name = "FILE|DIR")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct MoveStore {
    /// An empty database: postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(
        long,
        value_name = "URL",
        env = "BURROW_MOVE_STORE_TO",
        hide_env_values = true
    )]
    pub to: String,
    /// Configuration that says where the store is [default: ./burrow.toml if there]
    #[arg(long, value_name = "FILE|DIR")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// Files and folders of *.toml that make one configuration [default: ./burrow.toml]
    #[arg(value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,
    /// Print what `up` would do in this repository, as a burrow.toml
    #[arg(long, conflicts_with = "files")]
    pub print_detected: bool,
}

#[derive(Debug, clap::Args)]
pub struct Builds {
    /// Of this repository only
    #[arg(long, value_name = "NAME")]
    pub repo: Option<RepoName>,
    /// On this builder only
    #[arg(long, value_name = "NAME")]
    pub builder: Option<BuilderName>,
    /// In this state only
    #[arg(long, value_name = "STATUS", value_parser = parse_status)]
    pub status: Option<store::read::Status>,
    /// At most so many
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Wait until the listed builds are done; exit 3 unless all passed
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Number of the build
    pub build: BuildId,
    /// Which attempt, from 1 [default: the latest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
    /// Which step, from 0 [default: all]
    #[arg(long, value_name = "N")]
    pub step: Option<u32>,
    /// Go on until the build is done; exit 3 unless it passed
    #[arg(short, long, conflicts_with = "attempt")]
    pub follow: bool,
}

#[derive(Debug, clap::Args)]
pub struct Retry {
    /// Numbers of the builds
    #[arg(required = true, value_name = "BUILD")]
    pub builds: Vec<BuildId>,
    /// Wait until they are done; exit 3 unless all passed
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// Numbers of the builds
    #[arg(required = true, value_name = "BUILD")]
    pub builds: Vec<BuildId>,
}

#[derive(Debug, clap::Args)]
pub struct Maintnerd {
    /// Folder of the log; made if it is not there [default: `maintner` in the state folder of the configuration]
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    pub log: Option<PathBuf>,
    /// Configuration whose [maintner] says what to follow
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "follow")]
    pub config: Option<PathBuf>,
    /// Server whose log the folder is a copy of: the URL of its /logs
    #[arg(long, value_name = "URL")]
    pub follow: Option<String>,
    /// Where to serve it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6343")]
    pub listen: SocketAddr,
}

#[derive(Debug, clap::Args)]
pub struct CorpusArgs {
    /// Folder of the log
    #[arg(long, value_name = "DIR")]
    pub log: PathBuf,
    /// Ask what the log knew at a time (2026-01-31, 2026-01-31T12:00:00Z) or a place (SEGMENT:OFFSET)
    #[arg(long, value_name = "TIME|PLACE")]
    pub as_of: Option<AsOf>,
    #[command(subcommand)]
    pub command: CorpusCommand,
}

#[derive(Debug, Subcommand)]
pub enum CorpusCommand {
    /// What the log holds, in numbers
    #[command(alias = "summary")]
    Stats,
    /// List the tables that `query`, `sql` and `export` know, and what stands in them
    Tables,
    /// Print the rows of a table that pass some filters
    #[command(
        after_help = "Filters: COLUMN=VALUE, COLUMN!=VALUE, COLUMN~PART\n\nExample:\n  burrow corpus --log DIR query issues repo=golang/go state=open title~race --columns number,title"
    )]
    Query {
        /// One of `burrow corpus tables`
        table: String,
        filters: Vec<String>,
        /// Columns to print, all if not said
        #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
        columns: Vec<String>,
        /// Print no more rows than these
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        #[arg(long)]
        format: Option<RowFormat>,
    },
    /// Ask the corpus in SQL, as SQLite understands it
    #[command(
        after_help = "Example:\n  burrow corpus --log DIR sql \"SELECT label, count(*) FROM issue_labels JOIN issues USING (repo, number) WHERE state = 'open' GROUP BY label\""
    )]
    Sql {
        query: String,
        #[arg(long)]
        format: Option<RowFormat>,
    },
    /// Write tables to files, or one to the standard output
    #[command(
        after_help = "Examples:\n  burrow corpus --log DIR export --to out\n  burrow corpus --log DIR export issues comments --to out --format csv"
    )]
    Export {
        /// Of `burrow corpus tables`; all if not said
        tables: Vec<String>,
        /// Folder for a file of each table
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        #[arg(long, default_value = "ndjson")]
        format: RowFormat,
    },
    /// Make up a log to try all this on, always the same
    Example {
        /// Records of it
        #[arg(long, value_name = "N", default_value_t = 20_000)]
        records: usize,
    },
    /// Print an issue with its comments
    #[command(after_help = "Example:\n  burrow corpus --log DIR issue golang/go 23765")]
    Issue {
        /// OWNER/REPO
        repo: String,
        number: i32,
    },
    /// Print a change of Gerrit with its votes and messages
    #[command(after_help = "Example:\n  burrow corpus --log DIR change go.googlesource.com/go 12345")]
    Change {
        /// HOST/PROJECT
        project: String,
        number: i32,
    },
    /// Check all of the log; exit 1 if anything is wrong
    Fsck,
    /// Append what golang/build's maintnerd wrote to a folder: maintner-*.mutlog
    Import {
        /// Folder of its daily files
        from: PathBuf,
    },
}

/// How rows are printed. Not said: a table on a terminal, else CSV; with `--json` NDJSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowFormat {
    /// For people: one line for each row, long texts cut
    Table,
    /// A JSON object on each line
    Ndjson,
    Csv,
}

impl From<RowFormat> for corpus_sql::Format {
    fn from(format: RowFormat) -> corpus_sql::Format {
        match format {
            RowFormat::Table => corpus_sql::Format::Table,
            RowFormat::Ndjson => corpus_sql::Format::Ndjson,
            RowFormat::Csv => corpus_sql::Format::Csv,
        }
    }
}

/// Both work on the store itself, so whoever may write it may use them; the farm need not run.
#[derive(Debug, clap::Args)]
pub struct Key {
    /// Configuration that says where the store is [default: ./burrow.toml if there]
    #[arg(long, value_name = "FILE|DIR")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it, this once
    #[command(after_help = "Example:\n  burrow key new rack-7 --host-type rack-arm64")]
    New {
        /// What the key is called in lists
        name: String,
        /// Host type that it opens
        #[arg(long, value_name = "TYPE")]
        host_type: HostType,
    },
    /// List keys, without their secrets
    List,
    /// Let a key open nothing any more
    Revoke {
        /// Its number or name in `key list`
        #[arg(value_name = "ID|NAME")]
        which: String,
    },
    /// Print the keys that Go's buildlets show, from a master key
    ///
    /// HMAC-MD5 of the name under the master key, as golang/build makes them.
    #[command(after_help = "Example:\n  burrow key derive --master-key FILE host-linux-arm64 user-amy")]
    Derive {
        /// File with the master key, `-` for standard input
        #[arg(
            long,
            value_name = "FILE",
            conflicts_with = "development",
            required_unless_present = "development"
        )]
        master_key: Option<PathBuf>,
        /// Use the public development key, which protects nothing
        #[arg(long)]
        development: bool,
        /// Builder, host type or user-NAME
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Both work on the store itself, so whoever may write it may use them; the farm need not run.
#[derive(Debug, clap::Args)]
pub struct Token {
    /// Configuration that says where the store is [default: ./burrow.toml if there]
    #[arg(long, value_name = "FILE|DIR")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once
    #[command(after_help = "Example:\n  burrow token new amy --role contributor --expires 90d")]
    New {
        /// Whose it is; shown with what is done with it
        name: String,
        /// What its holder may do
        #[arg(long, value_enum, default_value = "contributor")]
        role: Role,
        /// After how long it ends: 12h, 90d [default: never]
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        expires: Option<Duration>,
    },
    /// List tokens, without their secrets
    List,
    /// Let a token allow nothing any more
    Revoke {
        /// Its number or name in `token list`
        #[arg(value_name = "ID|NAME")]
        which: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Read what a closed farm shows
    Reader,
    /// Retry and cancel builds
    Contributor,
    /// Everything
    Admin,
}

impl From<Role> for store::read::Role {
    fn from(role: Role) -> store::read::Role {
        match role {
            Role::Reader => store::read::Role::Reader,
            Role::Contributor => store::read::Role::Contributor,
            Role::Admin => store::read::Role::Admin,
        }
    }
}

fn parse_status(word: &str) -> Result<store::read::Status, String> {
    use store::read::Status;
    Status::parse(word).ok_or_else(|| {
        let words: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
        format!("wanted one of {}", words.join(", "))
    })
}

/// A whole number and `m`, `h` or `d`; from a minute to ten years.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wanted = || "wanted a number and m, h or d, such as `90d`, up to 3650d".to_owned();
    let unit = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86400,
        _ => return Err(wanted()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wanted())?;
    match number.checked_mul(unit) {
        Some(seconds @ 60..=315_360_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(wanted()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_nothing() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_lifetime_is_a_number_and_a_unit() {
        for (text, seconds) in [("1m", 60), ("12h", 43200), ("90d", 7_776_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in [
            "",
            "d",
            "0d",
            "12",
            "-1d",
            "1.5h",
            "3651d",
            "99999999999999999999d",
            "1ä",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
