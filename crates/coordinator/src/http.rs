//! The farm's doors: pages, archives and hooks, metrics and health, and machines that dial in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::{Path as AxumPath, Request, State};
use axum::http::{HeaderName, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use blobs::LogStore;
use config::Config;
use dashboard::{Dashboard, HealthItem, Live, QueueView};
use gitmirror::{Look, MirrorService, Seen};
use pool_reverse::{RegisterHead, ReversePool};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use store::Store;
use store::read::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use web::{Door, Frame, RawHandler, RawHead, RawStream, Server, Site};

use crate::downloads;
use crate::engine::{self, Board};
use crate::enroll;
use crate::gomote::{self, Gomotes};
use crate::health::{self, Facts};
use crate::known::{Least, known};
use crate::upkeep::Refused;
use crate::{Current, current};

/// What the doors lead to.
#[derive(Clone)]
pub struct Service {
    pub config: Current,
    pub refused: Refused,
    pub store: Store,
    pub logs: LogStore,
    pub board: Board,
    pub mirror: Arc<MirrorService>,
    pub reverse: ReversePool,
    pub gomotes: Gomotes,
    pub state: PathBuf,
    pub shown: maintnerd::Shown,
    pub clock: engine::Clock,
    pub log_trouble: crate::drive::LogTrouble,
}

/// Binds, or says who to ask.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen at {address}: choose another with `listen` in [farm], or with --listen")
    })
}

pub type Tls = Arc<rustls::ServerConfig>;

/// The certificate of the configuration, or one of our own; `None` without `listen_https`.
pub fn tls(config: &Config, state: &Path) -> anyhow::Result<Option<Tls>> {
    if config.farm.listen_https.is_none() {
        return Ok(None);
    }
    let tls = match &config.farm.tls {
        Some(files) => web::tls_from_files(&files.cert, &files.key),
        None => web::tls_of_our_own(&state.join("tls"), &["localhost".to_owned()]),
    };
    Ok(Some(tls.context("set up TLS")?))
}

pub async fn run(
    service: Service,
    http: TcpListener,
    https: Option<(TcpListener, Tls)>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut doors = vec![Door::Plain(http)];
    doors.extend(https.map(|(listener, tls)| Door::Tls(listener, tls)));
    let tokens = service.gomotes.tokens.clone();
    let known = |role: Role| {
        let tokens = tokens.clone();
        from_fn_with_state(Least { tokens, role }, known)
    };
    let mirror = |table: gitmirror::Table| web::router(table).with_state(service.mirror.clone());
    let hooks = web::router(hooks()).with_state(service.clone());
    let (site, pages) = pages(&service, &stop);
    let routes = web::router(table())
        .with_state(service.clone())
        .merge(web::router(gomote::table()).with_state(service.gomotes.clone()))
        .merge(web::router(enroll::table()).with_state(service.store.clone()))
        .merge(web::router(downloads::table()).with_state(service.state.join(downloads::FOLDER)))
        .merge(mirror(gitmirror::status()))
        .merge(mirror(gitmirror::archives()).layer(known(Role::Reader)))
        .merge(hooks.layer(known(Role::Contributor)))
        .merge(the_log(&service, &stop).layer(from_fn_with_state(service.clone(), may_read_the_log)))
        .fallback_service(pages);
    // Around the router, not in it: the path is changed before it is routed by.
    let router = Router::new()
        .fallback_service(routes)
        .layer(map_request(async |request| archive_path(request)));
    let mut open = OPEN.to_vec();
    if current(&service.config).maintner.public {
        open.extend(maintnerd::open_paths());
    }
    let router = site.fence(router, &open);
    let raw = Arc::new(Raw {
        reverse: service.reverse,
        gomotes: service.gomotes,
    });
    let raw_paths = RAW_PATHS.map(str::to_owned).to_vec();
    let server = Server {
        router,
        raw_paths,
        raw_header: Some(HeaderName::from_static(gomote::PROXY)),
        raw,
        limits: limits(open_files().map(|(_, most)| most)),
    };
    web::serve(doors, server, stop).await.context("serve HTTP")
}

/// Where machines that dial in register and bring their connections; they show keys.
const RAW_PATHS: [&str; 2] = ["/reverse", "/revdial"];

/// Open where reading needs a token: whether the farm lives, which tells nothing of it, and what asks for credentials
/// of its own.
const OPEN: [&str; 6] = [
    "/healthz",
    "/readyz",
    "/hook",
    "/hook/",
    // Lending machines, by golang/build's protocol; and signed programs for machines.
    "/buildlet/",
    revdial::proof::ENROL,
];

/// What is for programs that look after the farm.
fn table() -> web::Table<Service> {
    vec![
        ("/healthz", get(async || "ok\n")),
        ("/readyz", get(ready)),
        ("/metrics", get(metrics)),
    ]
}

/// Every address that a farm answers at, as its routers have them. A test of `burrow` has a row for each that says who
/// may what there.
pub fn endpoints() -> Vec<String> {
    let mut all = web::paths();
    let mut add = |paths: Vec<&'static str>| all.extend(paths.into_iter().map(str::to_owned));
    add(table().into_iter().map(|(path, _)| path).collect());
    add(gomote::table().into_iter().map(|(path, _)| path).collect());
    add(enroll::table().into_iter().map(|(path, _)| path).collect());
    add(downloads::table().into_iter().map(|(path, _)| path).collect());
    add(hooks().into_iter().map(|(path, _)| path).collect());
    add(maintnerd::paths());
    for table in [gitmirror::status(), gitmirror::archives()] {
        add(table.into_iter().map(|(path, _)| path).collect());
    }
    add(dashboard::paths());
    add(dashboard::gomote_paths());
    add(RAW_PATHS.to_vec());
    all
}

/// The mutation log, and questions about what it tells.
fn the_log(service: &Service, stop: &CancellationToken) -> Router {
    let shown = service.shown.clone();
    let reader = match &shown.own {
        Some((keeper, _)) => keeper.reader(),
        None => return Router::new(),
    };
    let served = maintnerd::Served {
        visible: shown.visible.clone(),
        reader,
        stop: stop.clone(),
    };
    maintnerd::routes(served)
        .merge(maintnerd::rpc(shown.snapshot.clone()))
        .merge(maintnerd::page_of(shown))
}

/// Everybody, if the configuration says so; else as [`known`].
async fn may_read_the_log(State(service): State<Service>, mut request: Request, next: Next) -> Response {
    if current(&service.config).maintner.public {
        return next.run(request).await;
    }
    // HTTP/2 has it in the address.
    let host = request
        .uri()
        .authority()
        .and_then(|host| host.as_str().parse().ok());
    if let Some(host) = host.filter(|_| !request.headers().contains_key(header::HOST)) {
        request.headers_mut().insert(header::HOST, host);
    }
    let (tokens, role) = (service.gomotes.tokens.clone(), Role::Reader);
    match known(State(Least { tokens, role }), request, next).await {
        Ok(answer) | Err(answer) => answer,
    }
}

/// Who says that something changed wakes its mirror and who follows it.
fn hooks() -> web::Table<Service> {
    vec![("/hook", post(hook_all)), ("/hook/{*name}", post(hook))]
}

async fn hook_all(State(service): State<Service>) -> impl IntoResponse {
    service.mirror.poke_all();
    if let Some((_, sources)) = &service.shown.own {
        sources.wake_all();
    }
    (StatusCode::ACCEPTED, "looking at every repository\n")
}

async fn hook(State(service): State<Service>, AxumPath(name): AxumPath<String>) -> impl IntoResponse {
    let config = current(&service.config);
    let repo = name.parse().ok().filter(|repo| service.mirror.poke(repo));
    let mut woken = usize::from(repo.is_some());
    if let Some((_, sources)) = &service.shown.own {
        woken += sources.wake(&name);
        let conf = repo
            .as_ref()
            .and_then(|repo| Some((repo, config.repos.get(repo)?)));
        if let Some((repo, conf)) = conf {
            woken += sources.wake(&format!("gerrit:{}", maintnerd::key(&conf.url, repo.as_str())));
        }
    }
    match woken {
        0 => (
            StatusCode::NOT_FOUND,
            "there is no repository of that name\n".to_owned(),
        ),
        _ => (StatusCode::ACCEPTED, format!("looking at {name}\n")),
    }
}

/// Clients are to leave the farm the file descriptors that it works with. `most`: how many there may be.
fn limits(most: Option<u64>) -> web::Limits {
    let share = |of: u64| {
        most.map_or(usize::MAX, |most| {
            usize::try_from(most / of).unwrap_or(usize::MAX)
        })
    };
    let default = web::Limits::default();
    web::Limits {
        http: default.http.min(share(4)).max(8),
        raw: default.raw.min(share(2)).max(8),
    }
}

/// Archives asked for as of golang/build's gitmirror.
fn archive_path(mut request: Request) -> Request {
    if let Some(path) = gitmirror::own_path(request.uri().path()) {
        let query = request.uri().query().unwrap_or_default();
        // A path of that form cannot fail to parse again; if it did, it would be no page of ours.
        if let Ok(uri) = format!("{path}?{query}").parse() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Machines that dial in, and requests for machines that are lent.
struct Raw {
    reverse: ReversePool,
    gomotes: Gomotes,
}

impl RawHandler for Raw {
    fn handle(&self, head: RawHead, stream: RawStream) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            if head.headers.contains_key(gomote::PROXY) {
                return self.gomotes.pass(head, stream).await;
            }
            if !head.tls {
                let text = "buildlet registration requires SSL";
                // Whoever left meanwhile does not need the answer.
                let _ = pool_reverse::refuse(stream, 500, text).await;
                return;
            }
            if head.path() == "/revdial" {
                return self.reverse.pickup(&head.target, Box::new(stream)).await;
            }
            let given = |name: &str| {
                let value = head.header(name);
                (!value.is_empty()).then(|| value.to_owned())
            };
            let register = RegisterHead {
                host_type: head.header("x-go-host-type").to_owned(),
                key: head.header("x-go-builder-key").to_owned(),
                hostname: head.header("x-go-builder-hostname").to_owned(),
                version: head.header("x-go-builder-version").to_owned(),
                revdial_version: head.header("x-revdial-version").to_owned(),
                instance: given("x-burrow-instance"),
                identity: given(revdial::proof::IDENTITY),
                keeps_alive: given(buildlet_api::wire::BURROW_KEEP_ALIVE).is_some(),
                release: given(buildlet_api::wire::BURROW_RELEASE).and_then(|text| text.parse().ok()),
                peer: head.peer.to_string(),
            };
            // It would be kept for as long as the machine stays.
            drop(head);
            self.reverse.register(register, Box::new(stream)).await;
        })
    }
}

/// Ready to be sent work: the store answers and takes writes. What is degraded is said either way.
async fn ready(State(service): State<Service>) -> impl IntoResponse {
    let reads = service.store.health().await.err();
    let facts = Facts {
        store_reads: reads.map(|why| format!("{:#}", anyhow::Error::from(why))),
        ..service.facts()
    };
    let (ready, text) = health::ready(&health::items(&facts));
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, text)
}

impl Service {
    /// All but what the store has to be asked for.
    fn facts(&self) -> Facts {
        let board = engine::read(&self.board);
        let free = blobs::disk_free(&self.state).map_err(|why| format!("{:#}", anyhow::Error::from(why)));
        Facts {
            store_writes: board.store_trouble.clone(),
            store_reads: None,
            paused: board.paused.clone(),
            disk_free: Some(free),
            logs: self.log_trouble.lock().expect("no holder panics").clone(),
            refused: self.refused.lock().expect("no holder panics").clone(),
            clock_off: self.clock.off(),
            files: open_files(),
        }
    }
}

/// How many file descriptors this process has, and how many it may have.
fn open_files() -> Option<(u64, u64)> {
    let used = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
    Some((used, most))
}

type Labels = Vec<(String, String)>;

async fn metrics(State(service): State<Service>) -> Result<impl IntoResponse, (StatusCode, String)> {
    let failed = |why: anyhow::Error| (StatusCode::SERVICE_UNAVAILABLE, format!("{why:#}\n"));
    let mut registry = Registry::with_prefix("burrow");
    let builds = Family::<Labels, Gauge>::default();
    registry.register("builds", "Builds by state", builds.clone());
    let counts = service.store.counts().await.map_err(|why| failed(why.into()))?;
    for (status, count) in counts {
        let labels = vec![("state".to_owned(), status.as_str().to_owned())];
        builds.get_or_create(&labels).set(count.cast_signed());
    }
    let machines = Family::<Labels, Gauge>::default();
    registry.register(
        "machines_connected",
        "Machines that are connected, by host type",
        machines.clone(),
    );
    for machine in service.store.machines().await.map_err(|why| failed(why.into()))? {
        let labels = vec![("host_type".to_owned(), machine.host_type.to_string())];
        machines
            .get_or_create(&labels)
            .inc_by(i64::from(machine.connected));
    }
    let gauge = |registry: &mut Registry, name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value.cast_signed());
        registry.register(name, help, gauge);
    };
    let free = blobs::disk_free(&service.state).map_err(|why| failed(why.into()))?;
    gauge(
        &mut registry,
        "disk_free_bytes",
        "Free space of the state folder",
        free,
    );
    let paused = engine::read(&service.board).paused.is_some();
    gauge(
        &mut registry,
        "paused",
        "1 while no build is started",
        u64::from(paused),
    );
    let lent = service.store.loans().await.map_err(|why| failed(why.into()))?;
    gauge(
        &mut registry,
        "machines_lent",
        "Machines that are lent to people",
        lent.len() as u64,
    );
    let repos = current(&service.config).repos.len();
    gauge(
        &mut registry,
        "repositories",
        "Repositories that are watched",
        repos as u64,
    );
    service.shown.measure(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|why| failed(why.into()))?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    ))
}

fn pages(service: &Service, stop: &CancellationToken) -> (Site, Router) {
    let live = Arc::new(Lives(service.clone()));
    let site = Site::new(service.gomotes.tokens.clone(), live.clone(), stop.clone());
    let dashboard = Dashboard {
        store: service.store.clone(),
        logs: service.logs.clone(),
        live,
        site: site.clone(),
    };
    let board = service.board.clone();
    let gomotes = dashboard::Gomotes {
        store: service.store.clone(),
        waiting: Arc::new(move || gomote::waiting(&engine::read(&board).loans)),
    };
    let pages = site.wrap(dashboard::routes(dashboard).merge(dashboard::gomotes(gomotes)));
    (site, pages)
}

/// What pages see of this process.
struct Lives(Service);

impl Live for Lives {
    fn queue(&self) -> Arc<QueueView> {
        let board = engine::read(&self.0.board);
        Arc::new(QueueView {
            waiting: board.waiting.clone(),
            at: board.at,
            paused: board.paused.clone(),
        })
    }

    fn config(&self) -> Arc<Config> {
        current(&self.0.config)
    }

    fn health(&self) -> Vec<HealthItem> {
        let item = |name: &str, trouble: &Option<String>, good: String| HealthItem {
            name: name.to_owned(),
            ok: trouble.is_none(),
            text: trouble.clone().unwrap_or(good),
        };
        let mut items: Vec<HealthItem> = health::items(&self.0.facts())
            .into_iter()
            .map(HealthItem::from)
            .collect();
        let config = self.config();
        for (repo, look) in self.0.mirror.looks() {
            let conf = config.repos.get(&repo);
            let trouble = look
                .error
                .clone()
                .or_else(|| untracked(conf?, look.seen.as_ref()?));
            items.push(item(&format!("repository {repo}"), &trouble, seen(&look)));
        }
        let log = self.0.shown.view();
        let size = format!("{} bytes", log.bytes);
        items.push(item("log of issues, changes and commits", &log.trouble, size));
        for source in &log.sources {
            let trouble = source.state.trouble().map(|_| maintnerd::words(source));
            let fresh = match source.fresh_secs_ago {
                Some(secs) => format!("{}; looked at {secs} s ago", maintnerd::words(source)),
                None => maintnerd::words(source),
            };
            items.push(item(&format!("source {}", source.name), &trouble, fresh));
        }
        items
    }
}

/// Why nothing of a repository is built that has something to build: a name that is written wrong.
fn untracked(conf: &config::Repo, seen: &Seen) -> Option<String> {
    let default = seen.default_branch.as_ref();
    if seen.heads.is_empty() || seen.heads.keys().any(|branch| conf.tracks(branch, default)) {
        return None;
    }
    let names: Vec<&str> = seen.heads.keys().take(10).map(|branch| branch.as_str()).collect();
    let more = if seen.heads.len() > names.len() {
        ", …"
    } else {
        ""
    };
    Some(match conf.branches.as_slice() {
        [] => format!(
            "its HEAD names no branch, and `branches` is not set; there are: {}{more}",
            names.join(", ")
        ),
        _ => format!(
            "`branches` matches none of its branches; there are: {}{more}",
            names.join(", ")
        ),
    })
}

fn seen(look: &Look) -> String {
    match (look.last_good, &look.seen) {
        (Some(at), Some(seen)) if !seen.heads.is_empty() => {
            let passed_over = match &seen.unnamed {
                (_, 0) => String::new(),
                (some, all) => format!(
                    "; not built for their names, which no farm can use: {}{}",
                    some.join(", "),
                    if *all > some.len() { ", …" } else { "" }
                ),
            };
            format!("looked at {} s ago{passed_over}", at.elapsed().as_secs())
        }
        (Some(_), _) => "is empty: there is nothing to build yet".to_owned(),
        (None, _) => "not looked at yet".to_owned(),
    }
}

impl Frame for Lives {
    fn farm(&self) -> String {
        current(&self.0.config).farm.name.clone()
    }

    fn closed(&self) -> bool {
        current(&self.0.config).farm.closed
    }

    fn names(&self) -> Vec<String> {
        let config = current(&self.0.config);
        let url = config.farm.public_url.as_deref().unwrap_or_default();
        let url = url.parse::<Uri>().ok();
        let own = url.as_ref().and_then(|url| url.host()).map(str::to_owned);
        own.into_iter().chain(config.farm.names.iter().cloned()).collect()
    }

    fn alarm(&self) -> Option<String> {
        let board = engine::read(&self.0.board);
        let paused = board
            .paused
            .as_ref()
            .map(|why| format!("Nothing is started: {why}"));
        let trouble = board
            .store_trouble
            .as_ref()
            .map(|why| format!("The store does not take writes: {why}"));
        trouble.or(paused)
    }
}
