use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::args::{Global, Serve, Up};
use crate::failure::{Exit, Failure, at_path};
use crate::farm_file::{self, Found};
use crate::server::{SERVER_FILE, Server, TOKEN_FILE};
use crate::{demo, logging, progress, secrets, wiring};

/// The ports tried in turn when none was asked for.
const PORTS: std::ops::RangeInclusive<u16> = 8080..=8090;

pub async fn up(global: &Global, up: &Up) -> Result<Exit, Failure> {
    logging::start(global, "warn")?;
    let defaults = farm_file::defaults(global)?;
    let mut found = if up.demo {
        farm_file::make_state_dir(&defaults.state_dir)?;
        demo::prepare(&defaults.state_dir, global, &defaults)?
    } else if let Some(path) = &up.config {
        farm_file::load(path, global, &defaults)?
    } else if let Some(place) = &up.repo {
        farm_file::of_repository(place, &defaults)?
    } else if Path::new(farm_file::NAME).exists() {
        farm_file::load(Path::new(farm_file::NAME), global, &defaults)?
    } else {
        farm_file::here(&defaults)?
    };
    println!("{}", found.why);
    if let Some(slots) = up.slots {
        for host in found.config.hosts.values_mut() {
            if let config::Pool::Local { slots: configured } = &mut host.pool {
                *configured = slots;
            }
        }
    }
    found.config.farm.listen_http = listen_address(up.listen, found.config.farm.listen_http)?;
    run(found, global, Some(up)).await
}

pub async fn serve(global: &Global, serve: &Serve) -> Result<Exit, Failure> {
    logging::start(global, "info")?;
    let defaults = farm_file::defaults(global)?;
    let found = farm_file::load(&serve.config, global, &defaults)?;
    refuse_taken(found.config.farm.listen_http)?;
    run(found, global, None).await
}

/// Runs the farm until a signal. With `up`, tells a person at a terminal how it goes.
async fn run(found: Found, global: &Global, up: Option<&Up>) -> Result<Exit, Failure> {
    for notice in &found.notices {
        tracing::warn!("{notice}");
    }
    let state_dir = found.config.farm.state_dir.clone();
    farm_file::make_state_dir(&state_dir)?;
    let mut defaults = farm_file::defaults(global)?;
    defaults.state_dir = state_dir.clone();
    let config = Arc::new(found.config);
    let stop = CancellationToken::new();
    let hand_over = Arc::new(AtomicBool::new(false));
    let signals = tokio::spawn(stop_on_signals(stop.clone(), hand_over.clone())?);
    let (on_ready, ready) = oneshot::channel();
    let serving = wiring::serve(
        Arc::clone(&config),
        found.reload,
        defaults,
        on_ready,
        stop.clone(),
        hand_over,
    );
    let telling = async {
        // It is dropped when the farm cannot start: then `serving` says why.
        let Ok(http) = ready.await else { return Ok(None) };
        let server_file = announce(&state_dir, http)?;
        if let Some(up) = up {
            let url = url_of(http);
            let token = secrets::own_token(&config, &state_dir).await?;
            greet(&config, &url, &state_dir);
            if !up.open_nothing {
                open_browser(&url);
            }
            let server = Server::at(&url, Some(token))?;
            progress::follow(&server, stop.clone()).await;
        }
        Ok::<_, Failure>(Some(server_file))
    };
    let telling = async {
        let told = telling.await;
        if told.is_err() {
            stop.cancel();
        }
        told
    };
    let (served, told) = tokio::join!(serving, telling);
    signals.abort();
    if let Ok(Some(server_file)) = &told {
        // Clients then say that no farm runs; a stale one would only make them say so later.
        let _ = std::fs::remove_file(server_file);
    }
    served?;
    told?;
    Ok(Exit::Done)
}

/// The first signal ends the farm cleanly, the second at once. SIGTERM is how a service manager makes room for the
/// next process, which goes on with what runs: `hand_over` is set.
pub fn stop_on_signals(
    stop: CancellationToken,
    hand_over: Arc<AtomicBool>,
) -> Result<impl Future<Output = ()> + Send, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen =
        |kind| signal(kind).map_err(|error| Failure::new(format!("cannot wait for signals: {error}")));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        for first in [true, false] {
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if first {
                hand_over.store(code == 143, Ordering::SeqCst);
                eprintln!("stopping; once more to stop at once");
                stop.cancel();
            } else {
                std::process::exit(code);
            }
        }
    })
}

/// Checks the address that was asked for, or finds a free port from the configured one on.
fn listen_address(asked: Option<SocketAddr>, configured: SocketAddr) -> Result<SocketAddr, Failure> {
    if let Some(address) = asked {
        if !address.ip().is_loopback() && address.ip() != configured.ip() {
            return Err(Failure::usage(format!("`{address}` is reached from other machines, without TLS"))
                .hint("listen on 127.0.0.1, or write `listen` and `insecure_http = true` into [farm] of a burrow.toml"));
        }
        refuse_taken(address)?;
        return Ok(address);
    }
    if configured != SocketAddr::from((Ipv4Addr::LOCALHOST, *PORTS.start())) {
        refuse_taken(configured)?;
        return Ok(configured);
    }
    for port in PORTS {
        let address = SocketAddr::new(configured.ip(), port);
        if !is_taken(address) {
            if address != configured {
                println!("port {} is taken, using {port}", PORTS.start());
            }
            return Ok(address);
        }
    }
    Err(Failure::new(format!(
        "ports {} to {} of {} are all taken",
        PORTS.start(),
        PORTS.end(),
        configured.ip()
    ))
    .hint("`--listen 127.0.0.1:0` takes any free port"))
}

fn refuse_taken(address: SocketAddr) -> Result<(), Failure> {
    if !is_taken(address) {
        return Ok(());
    }
    const ELSE: &str = "choose another address: `up --listen`, or `listen` in [farm] of the configuration";
    Err(if is_farm(address) {
        let url = url_of(address);
        Failure::new(format!(
            "cannot listen on {address}: a farm runs there already, see {url}/"
        ))
        .hint(format!(
            "`burrow status --server {url}` tells how it is; end it, or {ELSE}"
        ))
    } else {
        Failure::new(format!("cannot listen on {address}: something else does"))
            .hint(format!("end that program, or {ELSE}"))
    })
}

/// Whether a burrow answers there, within a second.
fn is_farm(address: SocketAddr) -> bool {
    use std::io::Read as _;
    let ask = || -> std::io::Result<String> {
        let limit = Some(Duration::from_millis(500));
        let place: SocketAddr = url_of(address)
            .trim_start_matches("http://")
            .parse()
            .map_err(std::io::Error::other)?;
        let mut stream = std::net::TcpStream::connect_timeout(&place, Duration::from_millis(500))?;
        stream.set_read_timeout(limit)?;
        stream.set_write_timeout(limit)?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut head = [0; 1024];
        let len = stream.read(&mut head)?;
        Ok(String::from_utf8_lossy(&head[..len]).to_lowercase())
    };
    ask().is_ok_and(|head| head.contains("\r\nserver: burrow\r\n"))
}

/// Only to say it well and early: who binds in the end learns the truth.
fn is_taken(address: SocketAddr) -> bool {
    let bound = TcpListener::bind(address);
    matches!(bound, Err(error) if error.kind() == std::io::ErrorKind::AddrInUse)
}

/// Writes where the farm is for clients in the same folder. The file's name.
fn announce(state_dir: &Path, http: SocketAddr) -> Result<PathBuf, Failure> {
    let path = state_dir.join(SERVER_FILE);
    let fresh = state_dir.join(format!("{SERVER_FILE}.new"));
    let text = serde_json::json!({ "url": url_of(http), "pid": std::process::id() }).to_string();
    std::fs::write(&fresh, text).map_err(|error| at_path("write", &fresh, &error))?;
    std::fs::rename(&fresh, &path).map_err(|error| at_path("write", &path, &error))?;
    Ok(path)
}

/// An address to type: `0.0.0.0` is no place to go to.
fn url_of(http: SocketAddr) -> String {
    let ip = match http.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, http.port()))
}

fn greet(config: &config::Config, url: &str, state_dir: &Path) {
    let names = |names: Vec<&str>| names.join(", ");
    println!();
    println!("  pages     {url}/");
    println!(
        "  repos     {}",
        names(config.repos.keys().map(|name| name.as_str()).collect())
    );
    println!(
        "  builders  {}",
        names(config.builders.keys().map(|name| name.as_str()).collect())
    );
    println!("  state     {}", state_dir.display());
    println!(
        "  token     {} (to retry and cancel; more with `burrow token new NAME`)",
        state_dir.join(TOKEN_FILE).display()
    );
    println!();
    // Nobody may be reading; the farm runs all the same.
    let _ = std::io::stdout().flush();
}

/// Opens the pages for a person who sits at a desktop. That it does not work is no matter: the
/// address is on the screen.
fn open_browser(url: &str) {
    use std::io::IsTerminal as _;
    let mac = cfg!(target_os = "macos");
    let desktop = mac
        || ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
    if !desktop || !std::io::stdout().is_terminal() || std::env::var_os("SSH_CONNECTION").is_some() {
        return;
    }
    let program = if mac { "open" } else { "xdg-open" };
    let null = std::process::Stdio::null;
    let _ = tokio::process::Command::new(program)
        .arg(url)
        .stdin(null())
        .stdout(null())
        .stderr(null())
        .spawn();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_and_a_free_one_taken_as_it_is() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let failure = listen_address(Some(address), address).unwrap_err();
        assert!(
            failure.message.contains(&address.to_string()),
            "{}",
            failure.message
        );
        drop(taken);
        assert_eq!(listen_address(Some(address), address), Ok(address));
    }

    #[test]
    fn an_open_address_needs_a_configuration_that_says_so() {
        let open: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let local: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(listen_address(Some(open), local).unwrap_err().exit, Exit::Usage);
        assert_eq!(listen_address(Some(open), open), Ok(open));
    }

    #[test]
    fn an_address_is_one_that_can_be_gone_to() {
        assert_eq!(url_of("0.0.0.0:81".parse().unwrap()), "http://127.0.0.1:81");
        assert_eq!(url_of("[::]:81".parse().unwrap()), "http://[::1]:81");
        assert_eq!(url_of("10.0.0.1:81".parse().unwrap()), "http://10.0.0.1:81");
    }
}
