//! A log that grows by 1,000 mutations a second, and 50 who follow it: how long from append to each
//! follower having it, and what that costs the server.
//!
//! The server is a process of its own: this program, told to serve. Followers ask as golang/build's
//! clients do, by long poll and ranges, and note when each mutation came that says when it was appended;
//! both read the clock of this machine.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use maintnerd::{Keeper, Served, Tell};
use maintpb::borrowed::{self, View};
use maintpb::{GithubIssueMutation, Message, Mutation, Timestamp};
use mutlog::{Folder, Records};
use sync::Log as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const FOLLOWERS: usize = 50;
const PER_SECOND: u32 = 1000;
const SECONDS: u64 = 20;
/// At first everybody comes at once.
const WARM_UP: Duration = Duration::from_secs(2);

pub fn run() -> ExitCode {
    // Fails only when there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = runtime().block_on(measure());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("follow-bench: {why:#}");
            ExitCode::FAILURE
        }
    }
}

/// The server's part: appends and serves until it is killed.
pub fn serve(dir: &str) -> ExitCode {
    let served = runtime().block_on(serve_in(dir));
    eprintln!("follow-bench: the server ended: {served:?}");
    ExitCode::FAILURE
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn serve_in(dir: &str) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (keeper, keep) = Keeper::open(Folder::new(dir), stop.clone())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/logs", listener.local_addr()?);
    let router = maintnerd::routes(Served {
        visible: keeper.visible(),
        reader: keeper.reader(),
        stop,
    });
    let appending = async {
        let mut tells = JoinSet::new();
        let mut every = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        for number in 1.. {
            every.tick().await;
            if let Some(tell) = keeper.tell() {
                tells.spawn(append(tell, number));
            }
            while tells.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        kept = keep => kept,
        served = async { axum::serve(listener, router).await } => Ok(served?),
        () = appending => Ok(()),
    }
}

/// One issue that is some hundred bytes long, and when it was handed over.
async fn append(mut tell: Tell, number: i32) {
    let now = now();
    let stamp = Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap_or(0),
        nanos: now.subsec_nanos().cast_signed(),
    };
    let issue = GithubIssueMutation {
        owner: "acme".to_owned(),
        repo: "widget".to_owned(),
        number: 1 + number % 50_000,
        created: Some(stamp),
        title: format!("issue {number}"),
        body: "x".repeat(200),
        ..GithubIssueMutation::default()
    };
    let mutation = Mutation {
        github_issue: Some(issue),
        ..Mutation::default()
    };
    // The server ends when its log does.
    let _ = tell.append(&[mutation.encode_to_vec()]).await;
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Ends with this.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(dir: &std::path::Path) -> anyhow::Result<Server> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["follow-bench", "--serve"])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut url = String::new();
    let said = child.stdout.take().expect("it is piped");
    BufReader::new(said).read_line(&mut url)?;
    let url = url.trim().to_owned();
    Ok(Server { child, url })
}

/// Seconds of a processor that the process has had.
fn processor(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    // Linux counts in hundredths.
    Ok((ticks(11) + ticks(12)) / 100.0)
}

async fn measure() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let server = start(dir.path())?;
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(SECONDS);
    let mut followers = JoinSet::new();
    for _ in 0..FOLLOWERS {
        followers.spawn(follow(server.url.clone(), begin, end));
    }
    tokio::time::sleep_until(begin.into()).await;
    let before = processor(server.child.id())?;
    tokio::time::sleep_until(end.into()).await;
    let used = processor(server.child.id())? - before;
    let mut all = Vec::new();
    while let Some(seen) = followers.join_next().await {
        all.extend(seen??);
    }
    all.sort_unstable();
    anyhow::ensure!(!all.is_empty(), "nobody saw anything");
    let part = |of: f64| all[((all.len() - 1) as f64 * of) as usize] as f64 / 1000.0;
    let seen = all.len() as f64 / FOLLOWERS as f64 / SECONDS as f64;
    println!("followers {FOLLOWERS}, each saw {seen:.0} mutations a second");
    println!(
        "append to visible: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        part(0.5),
        part(0.9),
        part(0.99),
        part(1.0)
    );
    println!("server: {:.0} % of a core", used / SECONDS as f64 * 100.0);
    Ok(())
}

/// Microseconds from append to here, of each mutation that came in time.
async fn follow(url: String, begin: Instant, end: Instant) -> anyhow::Result<Vec<u64>> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let base: reqwest::Url = url.parse()?;
    let (mut sum, mut had) = (0_u64, std::collections::BTreeMap::<u32, u64>::new());
    let mut seen = Vec::new();
    while Instant::now() < end {
        let asked = http.get(format!("{url}?waitsizenot={sum}")).send().await?;
        if asked.status() == reqwest::StatusCode::NOT_MODIFIED {
            continue;
        }
        let listed: Vec<maintnerd::Listed> = serde_json::from_slice(&asked.bytes().await?)?;
        sum = listed.iter().map(|segment| segment.size).sum();
        for segment in listed {
            let have = had.entry(segment.number).or_default();
            if *have == segment.size {
                continue;
            }
            let range = format!("bytes={have}-{}", segment.size - 1);
            let asked = http
                .get(base.join(&segment.url)?)
                .header("Range", range)
                .send()
                .await?;
            let bytes = asked.error_for_status()?.bytes().await?;
            let came = now();
            let mut records = Records::new(&bytes, *have);
            for (_, payload) in records.by_ref() {
                let told = borrowed::Mutation::decode(payload)?;
                let created = told.github_issue.and_then(|issue| issue.created);
                let Some(created) = created.filter(|_| Instant::now() >= begin) else {
                    continue;
                };
                let seconds = u64::try_from(created.seconds)?;
                let appended = Duration::new(seconds, u32::try_from(created.nanos)?);
                seen.push(u64::try_from(came.saturating_sub(appended).as_micros())?);
            }
            *have = segment.size;
        }
    }
    Ok(seen)
}
