//! Machines lent to people, from their side. Start at [`gomote`].

mod push; // a work tree to a machine
mod reach; // connections through the coordinator

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use buildlet_api::{CallError, Client, ExecSpec, ListOptions, ProcessState, Upload};
use clap::Subcommand;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::args::Global;
use crate::failure::{Exit, Failure, at_path};
use crate::server::Server;
use crate::show;
use reach::Counted;

/// Of the protocol that `create` speaks. Source: golang/build `buildlet/remote.go`.
const VERSION: &str = "20191119";

/// Entries of a listing, and bytes of an archive, past which something is wrong.
const MOST_ENTRIES: usize = 2_000_000;
const MOST_BYTES: u64 = 1 << 40;

/// Of `run` when the command could not be run, as `env` and containers have it.
const NOT_RUN: Exit = Exit::Command(125);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  burrow gomote create linux-amd64           wait for a machine; prints its name
  burrow gomote push                         the git work tree you stand in, to src/ there
  burrow gomote run --dir src make test      exit code of the command, output as it comes
  burrow gomote gettar --dir src/out -o out.tar.gz
  burrow gomote destroy                      give it back")]
pub struct Gomote {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Wait for a machine such as a builder has, and print its name
    ///
    /// The beginning of a builder's name is enough where it fits one. Without a name: lists the builders.
    #[command(after_help = "Example:\n  burrow gomote create linux-amd64")]
    Create {
        #[arg(value_name = "BUILDER")]
        builder: Option<String>,
    },
    /// List your machines
    #[command(after_help = "Example:\n  burrow gomote list --json")]
    List,
    /// Tell whether a machine answers, and what it is
    #[command(after_help = "Example:\n  burrow gomote ping user-amy-linux-amd64-0")]
    Ping {
        #[arg(value_name = "INSTANCE")]
        words: Vec<String>,
    },
    /// Run a command; its exit code is this program's
    ///
    /// 128 and the signal's number when a signal ended it, 125 when it could not be run.
    #[command(after_help = "\
Examples:
  burrow gomote run --dir src make test           a program of the machine
  burrow gomote run -e V=1 src/ci/build --fast    a program that was put there")]
    Run(Run),
    /// Bring a git work tree to a machine: tracked files as they are now, and new ones that git does not ignore
    ///
    /// Sends what differs; removes there what is no longer here, but for what git ignores.
    #[command(after_help = "Example:\n  burrow gomote push --dir src --dry-run")]
    Push(push::Push),
    /// Write one file
    #[command(after_help = "\
Examples:
  burrow gomote put build.sh tools/build.sh
  date | burrow gomote put - now.txt")]
    Put {
        /// Permission bits, octal [default: the file's own, 644 for standard input]
        #[arg(long, value_parser = parse_mode)]
        mode: Option<u32>,
        #[arg(required = true, num_args = 1.., value_name = "INSTANCE FILE|- DESTINATION")]
        words: Vec<String>,
    },
    /// Unpack a tar.gz
    #[command(after_help = "Example:\n  burrow gomote puttar --dir src source.tar.gz")]
    Puttar {
        /// Folder to unpack into
        #[arg(long, default_value = "")]
        dir: String,
        #[arg(num_args = 0.., value_name = "INSTANCE FILE|-")]
        words: Vec<String>,
    },
    /// Fetch a folder as a tar.gz
    #[command(after_help = "Example:\n  burrow gomote gettar --dir src/out -o out.tar.gz")]
    Gettar {
        /// Folder to fetch
        #[arg(long, default_value = ".")]
        dir: String,
        /// File to write [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[arg(value_name = "INSTANCE")]
        words: Vec<String>,
    },
    /// List a folder
    #[command(after_help = "Example:\n  burrow gomote ls -R --digest src")]
    Ls {
        /// Folders in folders, too
        #[arg(short = 'R', long)]
        recursive: bool,
        /// With the SHA-1 of each file
        #[arg(short, long)]
        digest: bool,
        /// Folders to leave out
        #[arg(long, value_delimiter = ',', value_name = "DIR,…")]
        skip: Vec<String>,
        #[arg(num_args = 0.., value_name = "INSTANCE DIR")]
        words: Vec<String>,
    },
    /// Remove files and folders; `.` is all of them
    #[command(after_help = "Example:\n  burrow gomote rm src/out tools")]
    Rm {
        #[arg(required = true, num_args = 1.., value_name = "INSTANCE PATH…")]
        words: Vec<String>,
    },
    /// Give machines back; what runs there ends, what is there is removed
    #[command(after_help = "Example:\n  burrow gomote destroy user-amy-linux-amd64-0")]
    Destroy {
        #[arg(value_name = "INSTANCE")]
        words: Vec<String>,
    },
    /// Give the farm your public keys, so that `ssh -p PORT INSTANCE@FARM` works, and scp, sftp and editors that use them
    ///
    /// In place of those that it had of you. Needs `listen_ssh` in the farm's configuration.
    #[command(after_help = "\
Examples:
  burrow gomote ssh-keys ~/.ssh/id_ed25519.pub
  curl https://github.com/amy.keys | burrow gomote ssh-keys -")]
    SshKeys {
        /// Lines as in authorized_keys, `-` for standard input
        #[arg(value_name = "FILE|-")]
        file: String,
    },
    /// Open a shell by the ssh server of the machine
    ///
    /// Runs the ssh program of this machine with a key made for this once, through the farm: no port of the machine needs to
    /// be open. The machine must have an ssh server; what follows INSTANCE goes to ssh.
    #[command(after_help = "\
Examples:
  burrow gomote ssh
  burrow gomote ssh user-amy-linux-amd64-0 -- uname -a")]
    Ssh(reach::Ssh),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// A program of the machine, whatever its name; so is any that has no `/` or begins with one
    #[arg(long)]
    system: bool,
    /// Folder to run in [default: the program's own; for programs of the machine the work folder]
    #[arg(long, default_value = "", value_name = "DIR")]
    dir: String,
    /// Environment; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    env: Vec<(String, String)>,
    /// PATH there: elements in which $PATH and $WORKDIR are understood, or EMPTY
    #[arg(long, value_delimiter = ',', value_name = "DIR,…")]
    path: Vec<String>,
    /// Print the command as it is run
    #[arg(long)]
    debug: bool,
    #[arg(
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "INSTANCE COMMAND ARGS…"
    )]
    words: Vec<String>,
}

/// A machine of ours, as the coordinator lists it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    user: String,
    name: String,
    host_type: String,
    builder_type: String,
    expires: jiff::Timestamp,
    #[serde(default)]
    machine: String,
}

pub async fn gomote(global: &Global, gomote: &Gomote) -> Result<Exit, Failure> {
    let server = Server::of(global)?;
    match &gomote.command {
        Command::Create { builder: None } => builders(global, &server).await,
        Command::Create {
            builder: Some(builder),
        } => create(global, &server, builder).await,
        Command::List => list(global, &server).await,
        Command::Ping { words } => ping(global, &only(&server, words).await?).await,
        Command::Run(asked) => run(&server, asked).await,
        Command::Push(asked) => {
            let (to, rest) = pick(&server, &asked.words).await?;
            none_left(&rest)?;
            push::push(&to, asked).await
        }
        Command::Put { mode, words } => {
            let (to, rest) = pick(&server, words).await?;
            put(&to, *mode, &rest).await
        }
        Command::Puttar { dir, words } => {
            let (to, rest) = pick(&server, words).await?;
            let file = match rest.as_slice() {
                [] => "-",
                [file] => file,
                [_, extra, ..] => return Err(too_many(extra)),
            };
            let (reader, size, bar) = source(file).await?;
            let done = to.put_tgz(dir, Upload::Reader { reader, size }).await;
            bar.finish_and_clear();
            done.map_err(failed)?;
            Ok(Exit::Done)
        }
        Command::Gettar { dir, output, words } => {
            gettar(&only(&server, words).await?, dir, output.as_deref()).await
        }
        Command::Ls {
            recursive,
            digest,
            skip,
            words,
        } => {
            let (to, rest) = pick(&server, words).await?;
            let options = ListOptions {
                recursive: *recursive,
                digest: *digest,
                skip: skip.clone(),
            };
            ls(global, &to, &rest, &options).await
        }
        Command::Rm { words } => {
            let (to, rest) = pick(&server, words).await?;
            if rest.is_empty() {
                return Err(Failure::usage("nothing to remove").hint("name files or folders; `.` is all"));
            }
            let paths: Vec<&str> = rest.iter().map(String::as_str).collect();
            to.remove_all(&paths).await.map_err(failed)?;
            Ok(Exit::Done)
        }
        Command::Destroy { words } => destroy(&server, words).await,
        Command::SshKeys { file } => ssh_keys(global, &server, file).await,
        Command::Ssh(asked) => {
            let (to, rest) = pick(&server, &asked.words).await?;
            reach::ssh(global, &server, to.host().as_str(), asked, &rest).await
        }
    }
}

async fn builders(global: &Global, server: &Server) -> Result<Exit, Failure> {
    let names = builder_names(server).await?;
    if global.json {
        println!("{}", serde_json::json!(names));
    } else {
        names.iter().for_each(|name| println!("{}", show::plain(name)));
    }
    Ok(Exit::Done)
}

async fn builder_names(server: &Server) -> Result<Vec<String>, Failure> {
    let page = server.json("/builders", &[]).await?;
    let rows = page["builders"].as_array().into_iter().flatten();
    Ok(rows
        .filter_map(|row| Some(row["name"].as_str()?.to_owned()))
        .collect())
}

async fn create(global: &Global, server: &Server, wanted: &str) -> Result<Exit, Failure> {
    let builder = whole_name(&builder_names(server).await?, wanted)?;
    let path = "/buildlet/create";
    let form = [("version", VERSION), ("builderType", builder.as_str())];
    let mut answer = server.form(path, &form).await?;
    let mut pending = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| server.broke(&error))? {
        pending.extend_from_slice(&piece);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if let Some(instance) = told(server, path, &line)? {
                match global.json {
                    true => println!("{}", serde_json::json!(instance)),
                    false => println!("{}", show::plain(&instance.name)),
                }
                return Ok(Exit::Done);
            }
        }
    }
    Err(server.strange(path, "it ended without a machine"))
}

/// What one line of the answer to `create` tells: the machine, or how the wait goes, which is printed.
fn told(server: &Server, path: &str, line: &[u8]) -> Result<Option<Instance>, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Line {
        Status { message: String, ahead: usize },
        Buildlet(Instance),
        Error(String),
    }
    let line: Line =
        serde_json::from_slice(line).map_err(|error| server.strange(path, &error.to_string()))?;
    match line {
        Line::Buildlet(instance) => Ok(Some(instance)),
        Line::Error(why) => Err(Failure::new(format!("no machine: {}", show::plain(&why)))),
        Line::Status { message, ahead } => {
            let message = match message.as_str() {
                "" => format!("waiting; {ahead} before you"),
                message => show::plain(message),
            };
            eprintln!("# {message}");
            Ok(None)
        }
    }
}

/// The one builder that `wanted` is, or begins.
fn whole_name(names: &[String], wanted: &str) -> Result<String, Failure> {
    if names.iter().any(|name| name == wanted) {
        return Ok(wanted.to_owned());
    }
    let fitting: Vec<&str> = names
        .iter()
        .filter(|name| name.starts_with(wanted))
        .map(String::as_str)
        .collect();
    match fitting.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(Failure::usage(format!("no builder is called `{wanted}`"))
            .hint(format!("there are: {}", names.join(", ")))),
        several => Err(Failure::usage(format!(
            "`{wanted}` may be {}",
            several.join(" or ")
        ))),
    }
}

async fn instances(server: &Server) -> Result<Vec<Instance>, Failure> {
    let path = "/buildlet/list";
    let found = server.json(path, &[]).await?;
    serde_json::from_value(found).map_err(|error| server.strange(path, &error.to_string()))
}

async fn list(global: &Global, server: &Server) -> Result<Exit, Failure> {
    let found = instances(server).await?;
    if global.json {
        println!("{}", serde_json::json!(found));
        return Ok(Exit::Done);
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["INSTANCE", "BUILDER", "MACHINE", "ENDS IF UNUSED"]);
    for one in &found {
        let left = one.expires.duration_since(jiff::Timestamp::now()).as_secs_f64();
        table.add_row([
            show::plain(&one.name),
            show::plain(&one.builder_type),
            show::plain(&one.machine),
            format!("in {}", show::took(left.max(0.0))),
        ]);
    }
    println!("{table}");
    Ok(Exit::Done)
}

/// Which machine is meant, and what else is said.
async fn pick(server: &Server, words: &[String]) -> Result<(Client, Vec<String>), Failure> {
    match split(&instances(server).await?, words) {
        Ok((name, rest)) => Ok((reach::client(server, &name)?, rest)),
        Err(why) => Err(match words.first() {
            Some(word) => ended(server, word).await.unwrap_or(why),
            None => why,
        }),
    }
}

async fn only(server: &Server, words: &[String]) -> Result<Client, Failure> {
    let (client, rest) = pick(server, words).await?;
    match rest.first() {
        Some(word) => Err(ended(server, word).await.unwrap_or_else(|| too_many(word))),
        None => Ok(client),
    }
}

/// Why a machine that was ours is it no more, in the farm's words. `None`: it knows no such loan.
async fn ended(server: &Server, name: &str) -> Option<Failure> {
    let client = reach::client(server, name).ok()?;
    let why = client.status().await.err()?;
    let known = matches!(&why, CallError::Refused { status: 502, body, .. } if body.contains("it ended at"));
    known.then(|| failed(why))
}

fn none_left(rest: &[String]) -> Result<(), Failure> {
    match rest {
        [] => Ok(()),
        [extra, ..] => Err(too_many(extra)),
    }
}

fn too_many(word: &str) -> Failure {
    Failure::usage(format!("`{}` is none of your machines", show::plain(word)))
        .hint("`burrow gomote list` shows them")
}

/// The first word if it names a machine, whole or without its owner; the only machine if it names none.
fn split(instances: &[Instance], words: &[String]) -> Result<(String, Vec<String>), Failure> {
    let named = |word: &String| {
        let is = |one: &&Instance| {
            one.name == *word || one.name.strip_prefix(&format!("{}-", one.user)) == Some(word)
        };
        instances.iter().find(is)
    };
    if let Some((first, rest)) = words.split_first()
        && let Some(one) = named(first)
    {
        return Ok((one.name.clone(), rest.to_vec()));
    }
    match instances {
        [one] => Ok((one.name.clone(), words.to_vec())),
        [] => Err(Failure::new("you have no machine").hint("`burrow gomote create BUILDER` gets one")),
        several => {
            let names: Vec<&str> = several.iter().map(|one| one.name.as_str()).collect();
            Err(Failure::usage("you have several machines; say which")
                .hint(format!("one of {}", names.join(", "))))
        }
    }
}

async fn ping(global: &Global, client: &Client) -> Result<Exit, Failure> {
    let status = client.status().await.map_err(failed)?;
    let folder = client.work_dir().await.map_err(failed)?;
    let software = match &status.burrow {
        Some(version) => format!("burrow {version}"),
        None => "Go's buildlet".to_owned(),
    };
    if global.json {
        let told = serde_json::json!({
            "name": client.host().as_str(), "version": status.version, "software": software, "workdir": folder,
        });
        println!("{told}");
    } else {
        println!(
            "{} answers: {}, version {}, in {}",
            client.host(),
            show::plain(&software),
            status.version,
            show::plain(&folder)
        );
    }
    Ok(Exit::Done)
}

async fn run(server: &Server, asked: &Run) -> Result<Exit, Failure> {
    let (client, words) = pick(server, &asked.words).await?;
    let Some((cmd, args)) = words.split_first() else {
        return Err(Failure::usage("no command to run"));
    };
    let path = match asked.path.as_slice() {
        [one] if one == "EMPTY" => vec!["$EMPTY".to_owned()],
        path => path.to_vec(),
    };
    let spec = ExecSpec {
        cmd: cmd.clone(),
        args: args.to_vec(),
        dir: asked.dir.clone(),
        env: asked.env.clone(),
        path,
        system: asked.system || cmd.starts_with('/') || !cmd.contains('/'),
        debug: asked.debug,
        limits: Default::default(),
    };
    let print = |piece: bytes::Bytes| async move {
        let mut out = std::io::stdout().lock();
        // A reader that has left is no reason to stop the command.
        let _ = out.write_all(&piece).and_then(|()| out.flush());
    };
    match client.exec(&spec, print).await {
        Ok(ProcessState::Ok) => Ok(Exit::Done),
        Ok(ProcessState::Failed(state)) => {
            eprintln!("{}: {}", show::plain(cmd), show::plain(&state));
            Ok(exit_of(&state))
        }
        Err(why) => Err(Failure {
            exit: NOT_RUN,
            ..failed(why)
        }),
    }
}

/// What a shell would make of a state such as `exit status 3` or `signal: killed`.
fn exit_of(state: &str) -> Exit {
    const SIGNALS: [(&str, u8); 12] = [
        ("hangup", 1),
        ("interrupt", 2),
        ("quit", 3),
        ("illegal instruction", 4),
        ("aborted", 6),
        ("bus error", 7),
        ("floating point exception", 8),
        ("killed", 9),
        ("segmentation fault", 11),
        ("broken pipe", 13),
        ("alarm clock", 14),
        ("terminated", 15),
    ];
    if let Some(code) = state.strip_prefix("exit status ") {
        return Exit::Command(code.trim().parse().unwrap_or(1));
    }
    let Some(signal) = state.strip_prefix("signal: ") else {
        return NOT_RUN;
    };
    let known = SIGNALS.iter().find(|(name, _)| signal.starts_with(name));
    Exit::Command(known.map_or(1, |(_, number)| 128 + number))
}

async fn put(client: &Client, mode: Option<u32>, rest: &[String]) -> Result<Exit, Failure> {
    let (file, to) = match rest {
        [file] => (file, None),
        [file, to] => (file, Some(to.clone())),
        [] => return Err(Failure::usage("no file to put")),
        [.., extra] => {
            return Err(Failure::usage(format!(
                "`{}` is one word too many",
                show::plain(extra)
            )));
        }
    };
    let own_name = || {
        let name = PathBuf::from(file);
        name.file_name().map(|name| name.to_string_lossy().into_owned())
    };
    let to = match (to, file.as_str()) {
        (Some(to), _) => Some(to),
        (None, "-") => None,
        (None, _) => own_name(),
    };
    let to = to.ok_or_else(|| Failure::usage("say what the file is to be called there"))?;
    let mode = match (mode, file.as_str()) {
        (Some(mode), _) => mode,
        (None, "-") => 0o644,
        (None, _) => mode_of(file)?,
    };
    let (reader, size, bar) = source(file).await?;
    let done = client.put_file(&to, mode, Upload::Reader { reader, size }).await;
    bar.finish_and_clear();
    done.map_err(failed)?;
    Ok(Exit::Done)
}

fn mode_of(file: &str) -> Result<u32, Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = std::fs::metadata(file).map_err(|error| at_path("read", file.as_ref(), &error))?;
    Ok(meta.permissions().mode() & 0o777)
}

type Source = (Box<dyn AsyncRead + Send + Unpin>, Option<u64>, ProgressBar);

/// A file or standard input, counted as it is read.
async fn source(file: &str) -> Result<Source, Failure> {
    if file == "-" {
        let bar = bar(None);
        let reader = Counted::new(reach::standard(std::io::stdin())?, bar.clone());
        return Ok((Box::new(reader), None, bar));
    }
    let wrong = |error: std::io::Error| at_path("read", file.as_ref(), &error);
    let opened = tokio::fs::File::open(file).await.map_err(wrong)?;
    let size = opened.metadata().await.map_err(wrong)?.len();
    let bar = bar(Some(size));
    Ok((Box::new(Counted::new(opened, bar.clone())), Some(size), bar))
}

/// How far bytes have come; seen on a terminal only.
fn bar(size: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn gettar(client: &Client, dir: &str, output: Option<&std::path::Path>) -> Result<Exit, Failure> {
    let bar = bar(None);
    match output {
        None if std::io::stdout().is_terminal() => {
            return Err(
                Failure::usage("an archive is nothing for a terminal").hint("write it to a file with -o")
            );
        }
        None => {
            let mut out = Counted::new(reach::standard(std::io::stdout())?, bar.clone());
            client.tgz(dir, &mut out, MOST_BYTES).await.map_err(failed)?;
            out.flush()
                .await
                .map_err(|error| Failure::new(format!("cannot print: {error}")))?;
        }
        Some(path) => {
            let wrong = |error: std::io::Error| at_path("write", path, &error);
            // Under its name when it is whole.
            let part = path.with_added_extension("part");
            let file = tokio::fs::File::create(&part).await.map_err(wrong)?;
            let mut out = Counted::new(file, bar.clone());
            let fetched = client.tgz(dir, &mut out, MOST_BYTES).await;
            if let Err(why) = fetched {
                let _ = std::fs::remove_file(&part);
                return Err(failed(why));
            }
            out.flush().await.map_err(wrong)?;
            std::fs::rename(&part, path).map_err(wrong)?;
        }
    }
    bar.finish_and_clear();
    Ok(Exit::Done)
}

async fn ls(
    global: &Global,
    client: &Client,
    rest: &[String],
    options: &ListOptions,
) -> Result<Exit, Failure> {
    let dir = match rest {
        [] => ".",
        [dir] => dir,
        [_, extra, ..] => return Err(too_many(extra)),
    };
    let entries = client.ls(dir, options, MOST_ENTRIES).await.map_err(failed)?;
    if global.json {
        let one = |entry: &buildlet_api::DirEntry| {
            serde_json::json!({
                "mode": entry.mode, "path": entry.path,
                "size": entry.file.as_ref().map(|file| file.size),
                "modified": entry.file.as_ref().map(|file| file.modified.as_str()),
                "sha1": entry.file.as_ref().and_then(|file| file.sha1.as_deref()),
            })
        };
        println!("{}", serde_json::Value::from_iter(entries.iter().map(one)));
        return Ok(Exit::Done);
    }
    for entry in &entries {
        let mut line = format!("{}\t{}", entry.mode, show::plain(&entry.path));
        if let Some(file) = &entry.file {
            line += &format!("\t{}\t{}", file.size, show::plain(&file.modified));
            if let Some(sha1) = &file.sha1 {
                line += &format!("\t{}", show::plain(sha1));
            }
        }
        println!("{line}");
    }
    Ok(Exit::Done)
}

async fn destroy(server: &Server, words: &[String]) -> Result<Exit, Failure> {
    let mut left = instances(server).await?;
    let (first, mut rest) = split(&left, words)?;
    let mut names = vec![first];
    while !rest.is_empty() {
        left.retain(|one| !names.contains(&one.name));
        let (name, others) = split(&left, &rest)?;
        if others.len() == rest.len() {
            return Err(too_many(&rest[0]));
        }
        names.push(name);
        rest = others;
    }
    for name in names {
        reach::client(server, &name)?.halt().await.map_err(failed)?;
        eprintln!("{} is given back", show::plain(&name));
    }
    Ok(Exit::Done)
}

async fn ssh_keys(global: &Global, server: &Server, file: &str) -> Result<Exit, Failure> {
    let (mut reader, _, bar) = source(file).await?;
    let mut text = String::new();
    let read = reader.read_to_string(&mut text).await;
    bar.finish_and_clear();
    read.map_err(|error| at_path("read", file.as_ref(), &error))?;
    let path = "/buildlet/ssh-keys";
    let answer = server.form(path, &[("keys", &text)]).await?;
    let told = server.read_json(path, answer).await?;
    if global.json {
        println!("{told}");
        return Ok(Exit::Done);
    }
    let word = |key: &str| show::plain(told[key].as_str().unwrap_or_default());
    println!("the farm knows {} of your keys", told["keys"]);
    match told["port"].as_u64() {
        Some(port) => println!(
            "ssh -p {port} INSTANCE@{}   ({})",
            reach::host(server)?,
            word("fingerprint")
        ),
        None => println!("it has no ssh gateway: `listen_ssh` is not set in its configuration"),
    }
    Ok(Exit::Done)
}

fn failed(why: CallError) -> Failure {
    match why {
        CallError::Refused {
            body, status: 502, ..
        } => Failure::new(show::plain(body.trim())).hint("`burrow gomote list` shows the machines you have"),
        CallError::Gone { request, source, .. } => {
            Failure::new(format!("{request} broke off: {}", plainly(&source)))
                .hint("`burrow gomote ping` tells whether the machine is still there")
        }
        why => Failure::from(anyhow::Error::from(why)),
    }
}

/// Why a connection ended, for people: HTTP libraries explain to programmers.
pub(crate) fn plainly(why: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = why;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let cut = [
        "unexpected EOF",
        "unexpected end of file",
        "before message completed",
        "close_notify",
    ];
    match cut.iter().any(|cut| text.contains(cut)) {
        true => "the farm ended the connection before the answer was whole".to_owned(),
        false => text,
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("wanted KEY=VALUE".to_owned()),
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "wanted permission bits such as 755".to_owned())
}

#[cfg(test)]
mod tests {
    use ids::MachineId;

    use super::*;

    fn instance(name: &str) -> Instance {
        Instance {
            user: "user-amy".to_owned(),
            name: name.to_owned(),
            host_type: "rack".to_owned(),
            builder_type: "linux".to_owned(),
            expires: jiff::Timestamp::UNIX_EPOCH,
            machine: String::new(),
        }
    }

    #[test]
    fn the_machine_is_named_or_the_only_one() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let one = [instance("user-amy-linux-0")];
        let two = [instance("user-amy-linux-0"), instance("user-amy-linux-1")];
        let check = |of: &[Instance], said: &str, name: &str, rest: &str| {
            assert_eq!(
                split(of, &words(said)).ok(),
                Some((name.to_owned(), words(rest))),
                "{said}"
            );
        };
        check(&one, "make test", "user-amy-linux-0", "make test");
        check(&one, "", "user-amy-linux-0", "");
        check(&two, "user-amy-linux-1 make", "user-amy-linux-1", "make");
        check(&two, "linux-1 make", "user-amy-linux-1", "make");
        let unclear = split(&two, &words("make test")).expect_err("which");
        assert!(unclear.hint.expect("a hint").contains("user-amy-linux-1"));
        assert!(
            split(&[], &words("make"))
                .expect_err("none")
                .message
                .contains("no machine")
        );
    }

    #[test]
    fn an_answer_that_is_cut_off_is_told_without_the_words_of_a_library() {
        let inner = std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "unexpected EOF during chunk size line",
        );
        let gone = CallError::Gone {
            host: MachineId::parse("user-amy-linux-0").expect("a name"),
            request: "exec",
            source: std::io::Error::other(inner),
        };
        let told = failed(gone).message;
        assert_eq!(
            told,
            "exec broke off: the farm ended the connection before the answer was whole"
        );
        let refused = std::io::Error::other("Connection refused (os error 111)");
        assert_eq!(plainly(&refused), "Connection refused (os error 111)");
    }

    #[test]
    fn a_builder_is_named_by_its_beginning() {
        let names = ["linux".to_owned(), "linux-race".to_owned(), "mac".to_owned()];
        assert_eq!(whole_name(&names, "linux").ok().as_deref(), Some("linux"));
        assert_eq!(whole_name(&names, "m").ok().as_deref(), Some("mac"));
        let unclear = whole_name(&names, "lin").expect_err("two fit");
        assert_eq!(unclear.message, "`lin` may be linux or linux-race");
        assert!(whole_name(&names, "plan9").is_err());
    }

    #[test]
    fn exit_codes_are_the_commands() {
        for (state, code) in [
            ("exit status 3", 3),
            ("exit status 300", 1),
            ("signal: killed", 137),
            ("signal: segmentation fault (core dumped)", 139),
            ("signal: user defined signal 1", 1),
            ("fork/exec /x: no such file or directory", 125),
        ] {
            assert_eq!(exit_of(state), Exit::Command(code), "{state}");
        }
    }
}
