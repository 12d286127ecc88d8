use ids::Timestamp;
use maud::{Markup, html};
use web::{Moment, Page, Section, ago, duration, segment};

use crate::ansi;
use crate::view::*;

fn page(title: impl Into<String>, here: Section, live: bool, body: Markup) -> Page {
    Page {
        title: title.into(),
        here,
        body,
        live,
    }
}

fn when(now: Timestamp, micros: i64) -> Markup {
    ago(now, Moment(Timestamp(micros)))
}

fn short(hash: &str) -> &str {
    hash.get(..7).unwrap_or(hash)
}

/// A sign, a word and a colour for each state: none of them alone.
fn badge(status: &str) -> Markup {
    html! { span class={"state chip " (status)} { (sign(status)) " " (status) } }
}

fn sign(status: &str) -> &'static str {
    match status {
        "passed" => "✓",
        "failed" => "✗",
        "infra" => "!",
        "running" => "▸",
        "waiting" => "…",
        "cancelled" => "⊘",
        _ => "·",
    }
}

fn cell(view: &Option<BuildView>) -> Markup {
    let Some(build) = view else {
        return html! { td { span.cell title="no build" { "·" } } };
    };
    let took = if build.took_ms > 0 {
        format!(", {}", duration(build.took_ms))
    } else {
        String::new()
    };
    let flaky = if build.flaky { ", attempts disagree" } else { "" };
    let title = format!(
        "{} at {}: {}{took}{flaky} {}",
        build.builder,
        short(&build.commit),
        build.status,
        build.reason
    );
    html! {
        td {
            a class={"cell " (build.status)} href={"/build/" (build.id)} title=(title) aria-label=(title) { (sign(build.status)) @if build.flaky { sup { "~" } } }
        }
    }
}

pub fn farm(view: &FarmPage, now: Timestamp) -> Page {
    let body = html! {
        h1 { "Farm" }
        p.say {
            a href="/builds?status=running" { (view.running) " running" } " · "
            a href="/queue" { (view.waiting) " waiting" } " · "
            a href="/machines" { (view.machines) " machines connected" }
        }
        @if view.repos.is_empty() {
            p.empty { "No repository is configured yet. Add a table " code { "[repo.NAME]" } " to burrow.toml." }
        }
        @for repo in &view.repos {
            section {
                h2 { a href={"/repo/" (segment(&repo.name))} { (repo.name) } }
                @if let Some(error) = &repo.error { p.trouble { "The mirror is behind: " (error) } }
                @else if let Some(at) = repo.fetched { p.say { "fetched " (when(now, at)) } }
                @else { p.say { "being fetched for the first time" } }
                @if repo.branches.is_empty() && repo.fetched.is_some() {
                    p.empty { "It has no commit on a tracked branch." }
                }
                @if !repo.branches.is_empty() {
                    table.list {
                        tbody {
                            @for branch in &repo.branches {
                                tr {
                                    th scope="row" { a href={"/repo/" (segment(&repo.name)) "/" (branch.name)} { (branch.name) } }
                                    td { code { (short(&branch.head.hash)) } " " (branch.head.title) }
                                    td.states {
                                        @if branch.cells.is_empty() { span.say { "no build yet" } }
                                        @for build in &branch.cells {
                                            a href={"/build/" (build.id)} title=(build.builder) { (badge(build.status)) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    page("Farm", Section::Farm, true, body)
}

pub fn grid(view: &GridView, now: Timestamp) -> Page {
    let mut groups: Vec<(&str, usize)> = Vec::new();
    for builder in &view.builders {
        match groups.last_mut() {
            Some((group, n)) if *group == builder.group => *n += 1,
            _ => groups.push((&builder.group, 1)),
        }
    }
    let body = html! {
        h1 { (view.repo) " " small { (view.branch) } }
        nav.tabs aria-label="Branches" {
            @for branch in &view.branches {
                a href={"/repo/" (segment(&view.repo)) "/" (branch)} aria-current=[(branch == &view.branch).then_some("page")] { (branch) }
            }
        }
        @if let Some(trouble) = &view.trouble { p.trouble { "The mirror is behind: " (trouble) } }
        @if view.rows.is_empty() { p.empty { "This branch has no commit yet." } }
        @else {
            div.grid-box tabindex="0" {
                table.grid.roomy {
                    thead {
                        tr.groups {
                            th.corner rowspan="2" scope="col" { "Commit" }
                            @for (group, n) in &groups { th colspan=(n) scope="colgroup" { (group) } }
                        }
                        tr.names {
                            @for builder in &view.builders {
                                th scope="col" title=[builder.known_issue.as_deref()] {
                                    a href={"/builder/" (segment(&builder.name))} { span { (builder.name) } }
                                }
                            }
                        }
                    }
                    tbody {
                        @for row in &view.rows {
                            tr {
                                th.commit scope="row" {
                                    div {
                                        a href={"/search?q=" (row.commit.hash)} { code { (short(&row.commit.hash)) } }
                                        span.title title=(row.commit.title) { (row.commit.title) }
                                        span.by { (row.commit.author) " · " (when(now, row.commit.time)) }
                                    }
                                }
                                @for one in &row.cells { (cell(one)) }
                            }
                        }
                    }
                }
            }
            p.pages {
                @if view.newer { a href="?" { "← newest" } }
                @if let Some(before) = view.before { a href={"?before=" (before)} { "older →" } }
            }
            p.legend { @for status in ["passed", "failed", "infra", "running", "waiting", "cancelled"] { (badge(status)) } " " span { "~ attempts disagree" } }
        }
    };
    page(
        format!("{} {}", view.repo, view.branch),
        Section::Farm,
        true,
        body,
    )
}

pub fn build(view: &BuildPage, now: Timestamp) -> Page {
    let build = &view.build;
    let over = !matches!(build.status, "waiting" | "running");
    let body = html! {
        h1 { (badge(build.status)) " build " (build.id) }
        p.lead { code { (short(&view.commit.hash)) } " " (view.commit.title) span.by { " · " (view.commit.author) " · " (when(now, view.commit.time)) } }
        p.say {
            a href={"/repo/" (segment(&build.repo))} { (build.repo) } " · "
            a href={"/builder/" (segment(&build.builder))} { (build.builder) }
            @for branch in &view.branches { " · " a href={"/repo/" (segment(&build.repo)) "/" (branch)} { (branch) } }
            " · " (build.status) " since " (when(now, build.since))
            @if build.took_ms > 0 { " · took " (duration(build.took_ms)) }
        }
        @if !build.reason.is_empty() { p.reason { (build.reason) } }
        @if let Some(wait) = &view.waiting {
            p.reason { "Waits: " (wait.reason) "; " (wait.ahead) " before it"
                @if let Some(at) = wait.starts { "; should start in " (duration(((at - now.0).max(0) / 1000) as u64)) } "." }
        }
        @if view.may_act {
            form.act method="post" action={"/build/" (build.id) @if over { "/retry" } @else { "/cancel" }} {
                input type="hidden" name="proof" value=(view.proof);
                button { @if over { "Retry" } @else { "Cancel" } }
            }
        } @else { p.say { a href={"/signin?to=/build/" (build.id)} { "Sign in" } " to retry or cancel" } }
        @for attempt in view.attempts.iter().rev() {
            section.attempt {
                h2 { "Attempt " (attempt.n) " " (badge(attempt.status)) }
                p.say { "on " a href="/machines" { (attempt.machine) } " · started " (when(now, attempt.started))
                    @if let Some(ended) = attempt.ended { " · took " (duration(((ended - attempt.started).max(0) / 1000) as u64)) } }
                @if !attempt.reason.is_empty() { p.reason { (attempt.reason) } }
                table.list {
                    thead { tr { th scope="col" { "Step" } th scope="col" { "Command" } th scope="col" { "State" } th scope="col" { "Time" } } }
                    tbody {
                        @for step in &attempt.steps {
                            tr {
                                th scope="row" { (step.name) }
                                td { code { (step.command) } }
                                td { @match (step.ok, step.started) {
                                    (Some(true), _) => span.passed { "✓ " (step.state) },
                                    (Some(false), _) => span.failed { "✗ " (step.state) },
                                    (None, Some(_)) => "running",
                                    (None, None) => span.say { "not run" },
                                } }
                                td { @if let (Some(from), Some(to)) = (step.started, step.ended) { (duration(((to - from).max(0) / 1000) as u64)) } }
                            }
                        }
                    }
                }
            }
        }
        @if !view.logs.is_empty() {
            p.pages { a href={"/build/" (build.id) "/log"} { "raw log" } a href={"/build/" (build.id) "/log?download=1"} { "download" } }
        }
        @for log in &view.logs {
            @let first = log.text.lines().position(ansi::is_failure);
            section {
                h2 { "Log of " (log.step) @if first.is_some() { " " a.say href={"#s" (log.index) "fail"} { "first failing line" } } }
                @if log.skipped > 0 { p.say { "The first " (web::bytes(log.skipped)) " are in the raw log." } }
                @if log.text.is_empty() && !log.live { p.empty { "It printed nothing." } }
                @else {
                    pre.lines data-events=[log.live.then(|| format!("/build/{}/log/events?step={}&offset={}", build.id, log.index, log.len))] {
                        @for (n, text) in log.text.lines().enumerate() {
                            span.row id=[(first == Some(n)).then(|| format!("s{}fail", log.index))] {
                                a.n id={"s" (log.index) "l" (n + 1)} href={"#s" (log.index) "l" (n + 1)} { (n + 1) }
                                span class=[ansi::is_failure(text).then_some("bad")] { (ansi::line(text)) "\n" }
                            }
                        }
                    }
                }
            }
        }
    };
    page(
        format!("build {}: {} {}", build.id, build.builder, build.status),
        Section::Builds,
        !over,
        body,
    )
}

fn table(builds: &[BuildView], now: Timestamp) -> Markup {
    html! {
        table.list {
            thead { tr { th scope="col" { "Build" } th scope="col" { "State" } th scope="col" { "Builder" } th scope="col" { "Commit" } th scope="col" { "Since" } th scope="col" { "Why" } } }
            tbody {
                @for build in builds {
                    tr {
                        th scope="row" { a href={"/build/" (build.id)} { (build.id) } }
                        td { (badge(build.status)) @if build.flaky { " ~" } }
                        td { a href={"/builder/" (segment(&build.builder))} { (build.builder) } }
                        td { (build.repo) " " code { (short(&build.commit)) } }
                        td { (when(now, build.since)) }
                        td { (build.reason) }
                    }
                }
            }
        }
    }
}

pub fn builds(view: &BuildsPage, now: Timestamp) -> Page {
    let body = html! {
        h1 { (view.heading) }
        nav.tabs aria-label="States" {
            a href="/builds" { "all" }
            @for status in store::read::Status::ALL { a href={"/builds?status=" (status.as_str())} { (status.as_str()) } }
        }
        @if view.builds.is_empty() { p.empty { "There is no such build." } } @else { (table(&view.builds, now)) }
        @if let Some(next) = &view.next { p.pages { a href=(next) { "older →" } } }
    };
    page(view.heading.clone(), Section::Builds, true, body)
}

pub fn queue(view: &QueuePage, now: Timestamp) -> Page {
    let body = html! {
        h1 { "Queue" }
        @if let Some(why) = &view.paused { p.trouble { "Nothing is started: " (why) } }
        h2 { (view.waiting.len()) " waiting" }
        @if view.waiting.is_empty() { p.empty { "Nothing waits." } } @else {
            table.list {
                thead { tr { th scope="col" { "Build" } th scope="col" { "Builder" } th scope="col" { "Waits" } th scope="col" { "Why" } th scope="col" { "Before it" } th scope="col" { "Should start" } } }
                tbody {
                    @for wait in &view.waiting {
                        tr {
                            th scope="row" { a href={"/build/" (wait.build)} { (wait.build) } }
                            td { (wait.builder) " of " (wait.repo) }
                            td { (when(now, wait.requested)) }
                            td { (wait.reason) }
                            td { (wait.ahead) }
                            td { @match wait.starts { Some(at) => { "in " (duration(((at - now.0).max(0) / 1000) as u64)) } None => "unknown" } }
                        }
                    }
                }
            }
        }
        h2 { (view.running.len()) " running" }
        @if view.running.is_empty() { p.empty { "Nothing runs." } } @else { (table(&view.running, now)) }
    };
    page("Queue", Section::Queue, true, body)
}

pub fn machines(view: &MachinesPage, now: Timestamp) -> Page {
    let body = html! {
        h1 { "Machines" }
        @if view.host_types.is_empty() { p.empty { "No host type is configured." } }
        @for host in &view.host_types {
            section {
                h2 { (host.name) " " small { (host.pool) } }
                p.say { (host.connected) " of " (host.expected) " connected"
                    @if host.connected < host.expected { strong.failed { " · " (host.expected - host.connected) " missing" } } }
                @if !host.machines.is_empty() {
                    table.list {
                        thead { tr { th scope="col" { "Machine" } th scope="col" { "State" } th scope="col" { "Since" } th scope="col" { "Buildlet" } th scope="col" { "Where" } } }
                        tbody {
                            @for machine in &host.machines {
                                tr {
                                    th scope="row" { (machine.name) }
                                    td { @if let Some(attempt) = &machine.running { a href={"/build/" (attempt.split('.').next().unwrap_or_default())} { "at work on " (attempt) } }
                                        @else if machine.connected { "free" }
                                        @else { span.failed { "gone: " (machine.why_gone) } } }
                                    td { (when(now, machine.changed)) }
                                    td { (machine.software) }
                                    td { (machine.address) }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    page("Machines", Section::Machines, true, body)
}

pub fn builders(view: &BuildersPage) -> Page {
    let body = html! {
        h1 { "Builders" }
        @if view.builders.is_empty() { p.empty { "No builder is configured." } } @else {
            table.list {
                thead { tr { th scope="col" { "Builder" } th scope="col" { "Group" } th scope="col" { "Host type" } th scope="col" { "Known issue" } } }
                tbody {
                    @for builder in &view.builders {
                        tr {
                            th scope="row" { a href={"/builder/" (segment(&builder.name))} { (builder.name) } }
                            td { (builder.group) }
                            td { (builder.host_type) }
                            td { (builder.known_issue.as_deref().unwrap_or("")) }
                        }
                    }
                }
            }
        }
    };
    page("Builders", Section::Builders, false, body)
}

pub fn status(view: &StatusPage) -> Page {
    let body = html! {
        h1 { "Status" }
        table.list {
            tbody {
                @for item in &view.items {
                    tr { th scope="row" { (item.name) } td { @if item.ok { span.passed { "✓ ok" } } @else { span.failed { "✗ trouble" } } } td { (item.text) } }
                }
            }
        }
        h2 { "Builds" }
        p.say { @for (name, count) in &view.counts { (count) " " (name) " · " } }
    };
    page("Status", Section::Status, true, body)
}

pub fn search(view: &SearchPage, now: Timestamp) -> Page {
    let body = html! {
        h1 { "Search" }
        @if view.query.is_empty() { p.empty { "Give a commit's hash, a build's number, a builder, or words of a title or author." } }
        @else if view.commits.is_empty() { p.empty { "Nothing was found for “" (view.query) "”." } }
        @else {
            table.list { tbody {
                @for (repo, commit) in &view.commits {
                    tr {
                        th scope="row" { a href={"/builds?commit=" (commit.hash)} { code { (short(&commit.hash)) } } }
                        td { (repo) } td { (commit.title) } td { (commit.author) } td { (when(now, commit.time)) }
                    }
                }
            } }
        }
    };
    page("Search", Section::Elsewhere, false, body)
}
