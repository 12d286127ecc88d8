//! Who may do what: every address, as every role, on a farm that anybody reads and on one that only holders of a token
//! do. What `docs/security.md` claims is tested here, in `security_claims`, and beside the code that it is about.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;

use crate::peers::{Farm, commit, git};
use crate::{burrow, until};

/// Who may pass at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// Everybody, whatever they show.
    Everybody,
    /// Everybody but who shows a token that is none.
    Guests,
    /// As the farm is read: everybody, or holders of a token.
    Readers,
    /// The same, but where everybody reads nobody is asked what a token is that they show.
    Lookers,
    /// Holders of a token, always.
    TokenReaders,
    Contributors,
    /// Contributors, by Go's protocol: its refusals are 400 and 401.
    Borrowers,
    /// Who shows a key of the host type.
    Machines,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Anonymous,
    Reader,
    Contributor,
    Admin,
    Machine,
}

const ROLES: [Role; 5] = [
    Role::Anonymous,
    Role::Reader,
    Role::Contributor,
    Role::Admin,
    Role::Machine,
];

/// One address: its route, whom it lets pass, what they are answered.
struct Row {
    route: &'static str,
    method: Method,
    /// Path and query.
    at: &'static str,
    form: &'static str,
    may: May,
    answers: u16,
}

fn get(route: &'static str, at: &'static str, may: May, answers: u16) -> Row {
    Row {
        route,
        method: Method::GET,
        at,
        form: "",
        may,
        answers,
    }
}

fn post(route: &'static str, at: &'static str, form: &'static str, may: May, answers: u16) -> Row {
    Row {
        method: Method::POST,
        form,
        ..get(route, at, may, answers)
    }
}

/// One row or more for each route of [`coordinator::endpoints`]. `404` and `400` past the gate are of things that
/// are not there, so that a row does nothing to the farm.
fn matrix() -> Vec<Row> {
    use May::*;
    vec![
        get("/signin", "/signin", Guests, 200),
        post("/signin", "/signin", "token=none-such", Guests, 401),
        post("/signout", "/signout", "proof=", Guests, 303),
        get("/-/", "STYLE", Guests, 200),
        get("/favicon.ico", "/favicon.ico", Guests, 200),
        get("/healthz", "/healthz", Everybody, 200),
        get("/readyz", "/readyz", Everybody, 200),
        get("/metrics", "/metrics", Lookers, 200),
        post(
            "/buildlet/create",
            "/buildlet/create",
            "version=20191119&builderType=none",
            Borrowers,
            400,
        ),
        get("/buildlet/list", "/buildlet/list", Borrowers, 200),
        get("/mirror/", "/mirror/", Lookers, 200),
        get("/mirror/status.json", "/mirror/status.json", Lookers, 200),
        get(
            "/archive/{file}",
            "/archive/widget.tar.gz?rev=main",
            TokenReaders,
            200,
        ),
        get("/archive/{file}", "/widget.tar.gz?rev=main", TokenReaders, 200),
        get(
            "/v1/repos/{repo}/archive/{*rev}",
            "/v1/repos/widget/archive/main.tar.gz",
            TokenReaders,
            200,
        ),
        post("/hook", "/hook", "", Contributors, 202),
        post("/hook/{*name}", "/hook/widget", "", Contributors, 202),
        post("/buildlet/ssh-keys", "/buildlet/ssh-keys", "", Borrowers, 400),
        post(
            "/buildlet/ssh-certificate",
            "/buildlet/ssh-certificate",
            "",
            Borrowers,
            400,
        ),
        // Signed programs, for machines that have no token.
        get("/buildlet/{name}", "/buildlet/manifest", Everybody, 404),
        post("/burrow/enroll", "/burrow/enroll", "", Everybody, 415),
        get("/logs", "/logs", TokenReaders, 200),
        get("/logs/{number}", "/logs/0", TokenReaders, 200),
        get("/maintner", "/maintner", TokenReaders, 200),
        get("/maintner.json", "/maintner.json", TokenReaders, 200),
        post(
            "/apipb.MaintnerService/HasAncestor",
            "/apipb.MaintnerService/HasAncestor",
            "",
            TokenReaders,
            200,
        ),
        post(
            "/apipb.MaintnerService/GetRef",
            "/apipb.MaintnerService/GetRef",
            "",
            TokenReaders,
            200,
        ),
        post(
            "/apipb.MaintnerService/GoFindTryWork",
            "/apipb.MaintnerService/GoFindTryWork",
            "",
            TokenReaders,
            200,
        ),
        post(
            "/apipb.MaintnerService/ListGoReleases",
            "/apipb.MaintnerService/ListGoReleases",
            "",
            TokenReaders,
            200,
        ),
        post(
            "/apipb.MaintnerService/GetDashboard",
            "/apipb.MaintnerService/GetDashboard",
            "",
            TokenReaders,
            200,
        ),
        get("/", "/", Readers, 200),
        get("/repo/{repo}", "/repo/widget", Readers, 303),
        get("/repo/{repo}/{*branch}", "/repo/widget/main", Readers, 200),
        get("/commit/{repo}/{hash}", "/commit/widget/0000000", Readers, 404),
        get(
            "/cell/{repo}/{hash}/{builder}",
            "/cell/widget/0000000/linux",
            Readers,
            404,
        ),
        get("/builds", "/builds", Readers, 200),
        get("/build/{id}", "/build/1", Readers, 200),
        get("/build/{id}/log", "/build/1/log", Readers, 200),
        get("/build/{id}/log/events", "/build/1/log/events", Readers, 200),
        post("/build/{id}/retry", "/build/99/retry", "", Contributors, 404),
        post("/build/{id}/cancel", "/build/99/cancel", "", Contributors, 404),
        get("/builders", "/builders", Readers, 200),
        get("/builder/{name}", "/builder/linux", Readers, 200),
        get("/machines", "/machines", Readers, 200),
        get("/machine/{name}", "/machine/none", Readers, 404),
        get("/queue", "/queue", Readers, 200),
        get("/status", "/status", Readers, 200),
        get("/search", "/search?q=nothing", Readers, 200),
        get("/events", "/events", Readers, 200),
        get(
            "/events/grid",
            "/events/grid?repo=widget&branch=main&tag=x",
            Readers,
            200,
        ),
        get("/gomotes", "/gomotes", Readers, 200),
        post(
            "/gomotes/{name}/destroy",
            "/gomotes/none/destroy",
            "",
            Contributors,
            404,
        ),
        get("/reverse", "/reverse", Machines, 101),
        // A number that nobody can guess is what it asks for: see `pool-reverse`.
        get(
            "/revdial",
            "/revdial?revdial.dialer=0123456789abcdef0123456789abcdef",
            Everybody,
            400,
        ),
    ]
}

/// The machines' door is of TLS only, and no place for browsers.
fn is_raw(route: &str) -> bool {
    ["/reverse", "/revdial"].contains(&route)
}

/// Whether a role is let pass.
fn passes(may: May, role: Role, closed: bool) -> bool {
    let ranks = [Role::Reader, Role::Contributor, Role::Admin];
    let rank = ranks.iter().position(|one| *one == role);
    match may {
        May::Everybody => true,
        May::Guests => role != Role::Machine,
        May::Readers | May::Lookers if closed => rank.is_some(),
        May::Lookers => true,
        May::Readers => role != Role::Machine,
        May::TokenReaders => rank.is_some(),
        May::Contributors | May::Borrowers => rank >= Some(1),
        May::Machines => role == Role::Machine,
    }
}

/// A farm with one build behind it, and a secret for each role.
struct Guarded {
    farm: Farm,
    folder: tempfile::TempDir,
    door: &'static str,
    secrets: Vec<(Role, String)>,
    client: Client,
    runtime: tokio::runtime::Runtime,
    closed: bool,
}

impl Guarded {
    fn start(door: &'static str, farm_keys: &str, script: &str) -> Guarded {
        let folder = tempfile::tempdir().expect("a folder");
        let repo = folder.path().join("widget");
        fs::create_dir(&repo).expect("a folder");
        git(&repo, &["init", "-q", "-b", "main"]);
        commit(&repo, "first", script);
        let text = format!(
            r#"
[farm]
listen = "127.0.0.1:0"
listen_https = "{door}"
names = ["farm.example.org"]
{farm_keys}
[repo.widget]
url = "{}"
poll = "1h"
[host.here]
pool = "local"
slots = 1
[host.rack]
pool = "reverse"
[builder.linux]
host = "here"
env = ["DEPLOY=secret:deploy"]
[recipe.widget]
steps = [{{ name = "script", run = ["sh", "step.sh"] }}]
"#,
            repo.display()
        );
        let secrets = folder.path().join("state/secrets");
        fs::create_dir_all(&secrets).expect("a folder");
        fs::write(secrets.join("deploy"), format!("{SECRET}\n")).expect("a file");
        let config = folder.path().join("burrow.toml");
        fs::write(&config, text).expect("a file");
        let said = fs::File::create(folder.path().join("farm.log")).expect("a file");
        let state = folder.path().join("state");
        let child = Command::new(env!("CARGO_BIN_EXE_burrow"))
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .arg("--state-dir")
            .arg(&state)
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .expect("burrow starts");
        let farm = Farm { child, state };
        until("the farm is up", || {
            farm.state.join("server.json").exists().then_some(())
        });
        let config = config.to_str().expect("a path");
        let told = |args: &[&str], field: &str| {
            let out = burrow(&farm.state, args);
            let made: Value = serde_json::from_slice(&out.stdout).expect("JSON");
            made[field].as_str().expect("the secret, this once").to_owned()
        };
        let token = |name: &str| told(&["token", "new", name, "--role", name, "--json"], "token");
        let secrets = vec![
            (Role::Anonymous, String::new()),
            (Role::Reader, token("reader")),
            (Role::Contributor, token("contributor")),
            (Role::Admin, token("admin")),
            (
                Role::Machine,
                told(
                    &[
                        "key",
                        "--config",
                        config,
                        "new",
                        "board",
                        "--host-type",
                        "rack",
                        "--json",
                    ],
                    "key",
                ),
            ),
        ];
        // Whoever links TLS chooses who encrypts; a second choice is refused, and is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .danger_accept_invalid_certs(true)
            .http1_only()
            .build()
            .expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let guarded = Guarded {
            closed: farm_keys.contains("closed"),
            farm,
            folder,
            door,
            secrets,
            client,
            runtime,
        };
        let admin = guarded.secret(Role::Admin);
        until("the first build is done", || {
            let page = guarded.ask(
                &Method::GET,
                "/build/1.json",
                "",
                &[("authorization", &bearer(admin))],
            );
            let page: Value = serde_json::from_str(&page.text).ok()?;
            let status = page["build"]["status"].as_str()?;
            (!["waiting", "running"].contains(&status)).then_some(())
        });
        guarded
    }

    fn secret(&self, role: Role) -> &str {
        let found = self.secrets.iter().find(|(one, _)| *one == role);
        &found.expect("each has one").1
    }

    fn base(&self) -> String {
        let told = fs::read(self.farm.state.join("server.json")).expect("it is there");
        let told: Value = serde_json::from_slice(&told).expect("JSON");
        told["url"].as_str().expect("a URL").to_owned()
    }

    /// As from another machine, by a proxy on this one, unless `fields` says otherwise.
    fn ask(&self, method: &Method, at: &str, form: &str, fields: &[(&'static str, &str)]) -> Answer {
        let at = match at {
            "STYLE" => &self.style(),
            at => at,
        };
        let raw = at.starts_with("/rev");
        let base = if raw {
            format!("https://{}", self.door)
        } else {
            self.base()
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.9"));
        for (name, value) in fields {
            if value.is_empty() {
                headers.remove(*name);
            } else {
                headers.insert(*name, value.parse().expect("a value"));
            }
        }
        if !form.is_empty() {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert("content-type", kind);
        }
        let request = self
            .client
            .request(method.clone(), format!("{base}{at}"))
            .headers(headers)
            .body(form.to_owned());
        self.runtime.block_on(async {
            let answer = request
                .send()
                .await
                .unwrap_or_else(|why| panic!("{method} {at}: {why:?}"));
            Answer::of(answer).await
        })
    }

    fn style(&self) -> String {
        let style = coordinator::endpoints()
            .into_iter()
            .find(|path| path.starts_with("/-/style"));
        style.expect("pages have a style")
    }

    fn as_role(&self, row: &Row, role: Role, more: &[(&'static str, &str)]) -> Answer {
        let secret = self.secret(role);
        let (bearer, mut fields) = (bearer(secret), Vec::new());
        if role != Role::Anonymous {
            fields.push(("authorization", bearer.as_str()));
        }
        if is_raw(row.route) {
            fields.extend([
                ("x-go-host-type", "rack"),
                ("x-go-builder-hostname", "board"),
                ("x-go-builder-version", "26"),
                ("x-revdial-version", "2"),
                ("x-go-builder-key", secret),
            ]);
        }
        fields.extend(more);
        self.ask(&row.method, row.at, row.form, &fields)
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    /// Streams that do not end are not read.
    async fn of(answer: Response) -> Answer {
        let (status, headers) = (answer.status(), answer.headers().clone());
        let kind = headers
            .get("content-type")
            .map_or("", |kind| kind.to_str().unwrap_or_default());
        let text = if kind.starts_with("text/event-stream") || status == StatusCode::SWITCHING_PROTOCOLS {
            String::new()
        } else {
            let bytes = answer.bytes().await.expect("a whole answer");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Answer {
            status: status.as_u16(),
            headers,
            text,
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap_or_default())
    }
}

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

const SECRET: &str = "k3y-of-the-release-9f27";

/// Prints its secret whole, in two pieces, and among other things; and its length, to show that it had it.
const SCRIPT: &str = "echo \"whole $DEPLOY end\"; printf 'cut k3y-of-the-'; sleep 0.3; echo 'release-9f27 end'; \
     echo \"${#DEPLOY} bytes\"; echo '<script>alert(1)</script><img src=x onerror=alert(1)>'";

#[test]
fn every_address_lets_pass_whom_it_should_and_nobody_else_on_an_open_farm() {
    let farm = Guarded::start("127.77.31.1:8443", "", SCRIPT);
    check_matrix(&farm);
    check_methods(&farm);
    check_hosts(&farm);
    check_forms(&farm);
    check_local(&farm);
    check_pages(&farm);
    check_taken(&farm);
    check_secrets(&farm);
    check_guesses(&farm);
}

#[test]
fn every_address_lets_pass_whom_it_should_and_nobody_else_on_a_closed_farm() {
    let farm = Guarded::start("127.77.31.2:8443", "reading = \"closed\"", SCRIPT);
    check_matrix(&farm);
    check_local(&farm);
    check_closed(&farm);
}

#[test]
fn every_address_has_a_row() {
    let rows: BTreeSet<&str> = matrix().iter().map(|row| row.route).collect();
    let mut without = coordinator::endpoints();
    without.retain(|route| !rows.contains(route.as_str()) && !route.starts_with("/-/"));
    assert!(
        without.is_empty(),
        "these addresses have no row in `matrix` that says who may what there: {without:?}"
    );
    let endpoints = coordinator::endpoints();
    let gone: Vec<&&str> = rows
        .iter()
        .filter(|row| **row != "/-/" && !endpoints.iter().any(|route| route == **row))
        .collect();
    assert!(gone.is_empty(), "these rows are of no address: {gone:?}");
}

/// Routes come from the tables that [`coordinator::endpoints`] is made of, and from nowhere else.
#[test]
fn no_route_is_added_beside_the_tables() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for name in ["coordinator", "dashboard", "gitmirror", "web"] {
        for file in sources(&crates.join(name).join("src")) {
            let text = fs::read_to_string(&file).expect("text");
            for line in text.lines().map(str::trim) {
                let adds = [
                    ".route(",
                    ".route_service(",
                    ".nest(",
                    ".nest_service(",
                    ".merge(",
                ];
                if adds.iter().any(|word| line.contains(word)) && !line.starts_with("//") {
                    found.push(format!("{name}: {line}"));
                }
            }
        }
    }
    found.sort();
    // `dashboard::routes` and `gomotes`, sign-in and assets are of tables as well.
    let known = [
        "coordinator: .merge(hooks.layer(known(Role::Contributor)))",
        "coordinator: .merge(maintnerd::page_of(shown))",
        "coordinator: .merge(maintnerd::rpc(shown.snapshot.clone()))",
        "coordinator: .merge(mirror(gitmirror::archives()).layer(known(Role::Reader)))",
        "coordinator: .merge(mirror(gitmirror::status()))",
        "coordinator: .merge(the_log(&service, &stop).layer(from_fn_with_state(service.clone(), may_read_the_log)))",
        "coordinator: .merge(web::router(downloads::table()).with_state(service.state.join(downloads::FOLDER)))",
        "coordinator: .merge(web::router(enroll::table()).with_state(service.store.clone()))",
        "coordinator: .merge(web::router(gomote::table()).with_state(service.gomotes.clone()))",
        "coordinator: let pages = site.wrap(dashboard::routes(dashboard).merge(dashboard::gomotes(gomotes)));",
        "web: .fold(Router::new(), |router, (path, route)| router.route(path, route))",
        "web: .merge(assets::routes())",
        "web: .merge(sign_in::routes(self.clone()))",
    ];
    assert_eq!(
        found, known,
        "routes are to be put into a table of `coordinator::endpoints`, with a row in `matrix`"
    );
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
    files
}

fn check_matrix(farm: &Guarded) {
    let mut wrong = Vec::new();
    for row in matrix() {
        for role in ROLES {
            let answer = farm.as_role(&row, role, &[]);
            let refusals: &[u16] = match row.may {
                May::Machines => &[412],
                May::Borrowers if role == Role::Anonymous => &[400],
                May::Borrowers => &[401],
                _ => &[401, 403],
            };
            let good = match passes(row.may, role, farm.closed) {
                true => answer.status == row.answers,
                // A 400 of Go's protocol is told from the one past the gate by its text.
                false => refusals.contains(&answer.status) && !answer.text.contains("builder type"),
            };
            if !good {
                let (method, at) = (&row.method, row.at);
                wrong.push(format!(
                    "{method} {at} as {role:?}: {} {:.80}",
                    answer.status, answer.text
                ));
            }
            if !is_raw(row.route) {
                check_headers(&row, &answer);
            }
        }
    }
    assert!(wrong.is_empty(), "closed: {}\n{}", farm.closed, wrong.join("\n"));
}

/// What browsers are told of every answer, also of refusals.
fn check_headers(row: &Row, answer: &Answer) {
    let policy = answer.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{}: {policy}", row.at);
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{}", row.at);
    assert_eq!(answer.header("x-frame-options"), "DENY", "{}", row.at);
    assert!(
        answer.header("access-control-allow-origin").is_empty(),
        "{}",
        row.at
    );
}

/// Methods that have no row are refused, as the one who may most.
fn check_methods(farm: &Guarded) {
    let rows = matrix();
    for row in &rows {
        for method in [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
        ] {
            if is_raw(row.route)
                || rows
                    .iter()
                    .any(|one| one.route == row.route && one.method == method)
            {
                continue;
            }
            let other = Row {
                method: method.clone(),
                ..get(row.route, row.at, row.may, 405)
            };
            let answer = farm.as_role(&other, Role::Admin, &[]);
            // Go's protocols, of before there was any other way to refuse.
            let by_go = ["/buildlet/create", "/buildlet/list", "/logs", "/logs/{number}"];
            let wanted = if by_go.contains(&row.route) { 400 } else { 405 };
            assert_eq!(answer.status, wanted, "{method} {}: {:.100}", row.at, answer.text);
        }
    }
}

/// A page of another site whose name points here is answered nothing, whatever it asks for.
fn check_hosts(farm: &Guarded) {
    for row in matrix().iter().filter(|row| !is_raw(row.route)) {
        let answer = farm.as_role(row, Role::Admin, &[("host", "evil.example:8080")]);
        assert_eq!(answer.status, 421, "{}: {:.100}", row.at, answer.text);
        assert!(
            answer.text.contains("`evil.example`") && answer.text.contains("`names` in [farm]"),
            "it says what to do: {}",
            answer.text
        );
        check_headers(row, &answer);
        for ours in [
            "farm.example.org",
            "FARM.example.org:8080",
            "localhost",
            "127.0.0.1:1",
            "[::1]",
        ] {
            let answer = farm.as_role(row, Role::Admin, &[("host", ours)]);
            assert_eq!(
                answer.status, row.answers,
                "{} for {ours}: {:.100}",
                row.at, answer.text
            );
        }
    }
}

/// What a browser sends by itself is not enough to change anything.
fn check_forms(farm: &Guarded) {
    let cookie = format!("burrow_token={}", farm.secret(Role::Contributor));
    let page = farm.ask(&Method::GET, "/build/1", "", &[("cookie", &cookie)]);
    let proof = page
        .text
        .split("name=\"proof\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("a form for who is signed in")
        .to_owned();
    let right = format!("proof={proof}");
    let origin = farm.base();
    let site = "sec-fetch-site";
    for at in ["/build/99/retry", "/build/99/cancel", "/gomotes/none/destroy"] {
        let send = |form: &str, fields: &[(&'static str, &str)]| {
            let fields = [&[("cookie", cookie.as_str())], fields].concat();
            farm.ask(&Method::POST, at, form, &fields).status
        };
        assert_eq!(send(&right, &[("origin", &origin)]), 404, "{at}: ours");
        assert_eq!(send(&right, &[(site, "same-origin")]), 404, "{at}: ours");
        assert_eq!(send("", &[("origin", &origin)]), 403, "{at}: no proof");
        assert_eq!(
            send("proof=00", &[("origin", &origin)]),
            403,
            "{at}: another's proof"
        );
        assert_eq!(
            send(&right, &[("origin", "https://evil.example")]),
            403,
            "{at}: another site"
        );
        assert_eq!(send(&right, &[("origin", "null")]), 403, "{at}: a sandbox");
        assert_eq!(send(&right, &[(site, "cross-site")]), 403, "{at}: another site");
        assert_eq!(send(&right, &[(site, "same-site")]), 403, "{at}: a neighbour");
    }
    // Nobody is signed in by another site, either.
    let form = format!("token={}", farm.secret(Role::Reader));
    let foreign = farm.ask(
        &Method::POST,
        "/signin",
        &form,
        &[("origin", "https://evil.example")],
    );
    assert_eq!((foreign.status, foreign.header("set-cookie")), (403, ""));
    let signed_in = farm.ask(&Method::POST, "/signin", &form, &[("origin", &origin)]);
    let set = signed_in.header("set-cookie");
    assert!(
        set.contains("; HttpOnly; SameSite=Strict") && !set.contains("Secure"),
        "{set}"
    );
    let secure = farm.ask(&Method::POST, "/signin", &form, &[("x-forwarded-proto", "https")]);
    assert!(
        secure.header("set-cookie").ends_with("; Secure"),
        "{:?}",
        secure.headers
    );
    let away = farm.ask(
        &Method::POST,
        "/signin",
        &format!("{form}&next=//evil.example"),
        &[],
    );
    assert_eq!(away.header("location"), "/");
}

/// A program of this machine may fetch the source and announce a push, without a token; where reading is closed it may
/// announce only. What a browser on this machine does for a page of another site is not this machine's wish.
fn check_local(farm: &Guarded) {
    let local = [("x-forwarded-for", "")];
    let archive = "/archive/widget.tar.gz?rev=main";
    let wanted = if farm.closed { 401 } else { 200 };
    assert_eq!(farm.ask(&Method::GET, archive, "", &local).status, wanted);
    assert_eq!(farm.ask(&Method::POST, "/hook/widget", "", &local).status, 202);
    for foreign in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("via", "1.1 x"),
    ] {
        let fields = [local[0], foreign];
        assert_eq!(
            farm.ask(&Method::GET, archive, "", &fields).status,
            401,
            "{foreign:?}"
        );
        assert_eq!(
            farm.ask(&Method::POST, "/hook", "", &fields).status,
            401,
            "{foreign:?}"
        );
    }
    let named = [local[0], ("host", "farm.example.org")];
    assert_eq!(
        farm.ask(&Method::POST, "/hook", "", &named).status,
        401,
        "by its public name"
    );
}

/// People are led to the sign-in and back, programs are told, and nothing of the farm is told on the way.
fn check_closed(farm: &Guarded) {
    let person = [("accept", "text/html,application/xhtml+xml")];
    let led = farm.ask(&Method::GET, "/build/1?step=0", "", &person);
    assert_eq!(
        (led.status, led.header("location")),
        (303, "/signin?next=/build/1%3Fstep%3D0")
    );
    let page = farm.ask(&Method::GET, "/signin?next=/build/1", "", &person);
    assert!(
        page.status == 200 && !page.text.contains("widget"),
        "{}",
        page.text
    );
    for at in [
        "/builds.json",
        "/api/v1/builds",
        "/api/v1/signin",
        "/none/such",
        "/hook/../builds",
    ] {
        let told = farm.ask(&Method::GET, at, "", &[]);
        assert_eq!(told.status, 401, "{at}");
        assert!(!told.text.contains("widget"), "{at}: {}", told.text);
    }
    let cookie = format!("burrow_token={}", farm.secret(Role::Reader));
    let page = farm.ask(&Method::GET, "/build/1", "", &[("cookie", &cookie), person[0]]);
    assert!(page.status == 200 && page.text.contains("widget"));
}

/// Nothing inline that would need a weaker policy, and what steps print is text.
fn check_pages(farm: &Guarded) {
    let cookie = format!("burrow_token={}", farm.secret(Role::Admin));
    for row in matrix()
        .iter()
        .filter(|row| row.may == May::Readers && row.method == Method::GET)
    {
        let page = farm.ask(
            &Method::GET,
            row.at,
            "",
            &[("accept", "text/html"), ("cookie", &cookie)],
        );
        if !page.header("content-type").starts_with("text/html") {
            continue;
        }
        for inline in [
            "<style",
            " style=\"",
            "<script>",
            " onclick=",
            " onerror=",
            "javascript:",
            "<iframe",
        ] {
            let shown = page
                .text
                .replace("&lt;script&gt;", "")
                .replace("onerror=alert(1)&gt;", "");
            assert!(!shown.contains(inline), "{}: {inline} in\n{}", row.at, page.text);
        }
    }
    let page = farm.ask(&Method::GET, "/build/1", "", &[]);
    assert!(page.text.contains("&lt;script&gt;alert(1)"), "{}", page.text);
}

/// A second farm at the same address is told what is there.
fn check_taken(farm: &Guarded) {
    let base = farm.base();
    let address = base.trim_start_matches("http://");
    let other = farm.folder.path().join("other");
    let out = burrow(&other, &["up", "--demo", "--open-nothing", "--listen", address]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    let wanted = format!("cannot listen on {address}: a farm runs there already, see {base}/");
    assert!(said.contains(&wanted), "{said}");
}

/// A configured secret reaches the step and no log, page or store; a token is stored as a hash.
fn check_secrets(farm: &Guarded) {
    let stars = "*".repeat(SECRET.len());
    let log = farm.ask(&Method::GET, "/build/1/log?step=0", "", &[]).text;
    assert!(log.contains(&format!("whole {stars} end\n")), "{log}");
    assert!(log.contains(&format!("cut {stars} end\n")), "{log}");
    assert!(
        log.contains(&format!("{} bytes\n", SECRET.len())),
        "the step has it: {log}"
    );
    let mut kept: Vec<PathBuf> = vec![];
    let mut folders = vec![farm.farm.state.join("logs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                kept.push(entry.path());
            }
        }
    }
    assert!(!kept.is_empty());
    kept.extend(["farm.db", "farm.db-wal"].map(|name| farm.farm.state.join(name)));
    kept.push(farm.folder.path().join("farm.log"));
    for file in kept {
        let Ok(bytes) = fs::read(&file) else { continue };
        let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!holds(SECRET), "{}", file.display());
        for (role, secret) in farm.secrets.iter().filter(|(role, _)| *role != Role::Anonymous) {
            assert!(!holds(secret), "the secret of {role:?} in {}", file.display());
        }
    }
    for list in [&["token", "list", "--json"][..], &["key", "list", "--json"]] {
        let mut args = list.to_vec();
        let config = farm.folder.path().join("burrow.toml");
        let config = config.to_str().expect("a path");
        args.splice(1..1, ["--config", config]);
        let out = burrow(&farm.farm.state, &args);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(said.contains("\"name\""), "{said}");
        for (_, secret) in farm.secrets.iter().filter(|(role, _)| *role != Role::Anonymous) {
            assert!(!said.contains(secret.as_str()), "shown again: {said}");
        }
    }
}

/// Who guesses is answered 429 wherever, others and their own good token are not.
fn check_guesses(farm: &Guarded) {
    let from = |address: &'static str| [("x-forwarded-for", address)];
    let with = |secret: &str, address: &'static str| {
        let bearer = bearer(secret);
        farm.ask(
            &Method::GET,
            "/builds",
            "",
            &[from(address)[0], ("authorization", &bearer)],
        )
        .status
    };
    let reader = farm.secret(Role::Reader);
    assert_eq!(with(reader, "203.0.113.66"), 200);
    for n in 0..10 {
        assert_eq!(with(&format!("bt_guess{n}"), "203.0.113.66"), 401, "guess {n}");
    }
    assert_eq!(with("bt_guess10", "203.0.113.66"), 429);
    assert_eq!(
        with("bt_guess3", "203.0.113.66"),
        401,
        "the same again is no new guess"
    );
    assert_eq!(
        with(farm.secret(Role::Admin), "203.0.113.66"),
        429,
        "nor is what was not good before"
    );
    assert_eq!(with(reader, "203.0.113.66"), 200, "what was good stays good");
    assert_eq!(
        with(reader, "203.0.113.67"),
        200,
        "others are not held to account"
    );
    let guess = bearer("bt_another");
    let guesser = [from("203.0.113.66")[0], ("authorization", guess.as_str())];
    for (method, at) in [
        (Method::GET, "/archive/widget.tar.gz?rev=main"),
        (Method::POST, "/hook"),
        (Method::GET, "/buildlet/list"),
        (Method::POST, "/build/99/retry"),
    ] {
        assert_eq!(farm.ask(&method, at, "", &guesser).status, 429, "{at}");
    }
    let sign_in = farm.ask(
        &Method::POST,
        "/signin",
        "token=bt_yet_another",
        &from("203.0.113.66"),
    );
    assert_eq!(sign_in.status, 429);
    let cookie = [from("203.0.113.66")[0], ("cookie", "burrow_token=bt_old")];
    assert_eq!(
        farm.ask(&Method::GET, "/builds", "", &cookie).status,
        200,
        "an old cookie is nobody's"
    );
    // Keys of machines are counted where they register.
    let row = get("/reverse", "/reverse", May::Machines, 101);
    let statuses: Vec<u16> = (0..12)
        .map(|n| {
            let wrong = format!("wrong{n}");
            farm.as_role(&row, Role::Machine, &[("x-go-builder-key", &wrong)])
                .status
        })
        .collect();
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
}

/// `docs/security.md` names the test that holds each claim.
#[test]
fn every_claim_of_the_documentation_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let doc = fs::read_to_string(root.join("docs/security.md")).expect("it is there");
    let mut text = String::new();
    for entry in fs::read_dir(root.join("crates")).expect("a folder").flatten() {
        for folder in ["src", "tests"].map(|folder| entry.path().join(folder)) {
            if folder.is_dir() {
                let sources = sources(&folder).into_iter();
                sources.for_each(|file| text += &fs::read_to_string(file).unwrap_or_default());
            }
        }
    }
    let (mut claims, mut missing, mut of_claims) = (0, Vec::new(), false);
    for line in doc.lines() {
        of_claims = line.starts_with("| claim") || (of_claims && line.starts_with('|'));
        if !of_claims || line.starts_with("| claim") || line.starts_with("|---") {
            continue;
        }
        let tests = line
            .trim_end_matches(['|', ' '])
            .rsplit('|')
            .next()
            .expect("a cell");
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test in: {line}");
        claims += 1;
        missing.extend(
            names
                .into_iter()
                .filter(|name| !text.contains(&format!("fn {name}("))),
        );
    }
    assert!(claims >= 20, "only {claims} claims were found");
    assert!(
        missing.is_empty(),
        "named in docs/security.md and not there: {missing:?}"
    );
}
