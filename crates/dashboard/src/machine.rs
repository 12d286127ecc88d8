//! Machines: what is there by host type, what is missing, and the story of one.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use config::{Host, Pool};
use ids::{MachineId, Timestamp};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use store::read::{BuildFilter, LoanRow, MachineRow};
use web::{Page, Problem, Section, Visit, plural, segment};

use crate::part::{self, *};
use crate::routes::{Answer, App, parsed};
use crate::view::*;

/// Builds of one machine's list.
const LISTED: usize = 50;

#[derive(Debug, Clone, Serialize)]
pub struct MachinesPage {
    pub host_types: Vec<HostTypeView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct HostTypeView {
    pub name: String,
    /// `local`, `reverse`; empty when it is no more in the configuration.
    pub pool: String,
    pub notes: String,
    pub owners: Vec<String>,
    pub connected: usize,
    /// How many should be.
    pub expected: usize,
    pub busy: usize,
    /// Builds that wait for one.
    pub waiting: usize,
    /// Up to 200 of them, by name.
    pub builders: Vec<String>,
    pub builders_in_all: usize,
    #[serde(flatten)]
    pub extent: Extent,
    /// Those that are connected first.
    pub machines: Vec<MachineView>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct MachinesQuery {
    /// Of one host type only.
    host: Option<String>,
    from: Option<usize>,
}

#[derive(Debug, Clone, Serialize)]
pub struct MachinePage {
    pub machine: MachineView,
    pub notes: String,
    pub owners: Vec<String>,
    /// That had an attempt on it, newest first.
    pub builds: Vec<BuildView>,
}

/// How many machines of a host type there should be.
pub fn expected(host: &Host) -> usize {
    match host.pool {
        Pool::Local { slots } => slots as usize,
        Pool::Reverse { expect, .. } => expect as usize,
    }
}

pub async fn machines(State(app): State<App>, visit: Visit, Query(query): Query<MachinesQuery>) -> Answer {
    let (config, rows) = (app.live.config(), app.store.machines().await?);
    let (queue, loans) = (app.live.queue(), app.store.loans().await?);
    let mut host_types = Vec::new();
    let gone = rows
        .iter()
        .map(|row| &row.host_type)
        .filter(|name| !config.hosts.contains_key(*name));
    let mut names: Vec<_> = config.hosts.keys().chain(gone).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| query.host.as_ref().is_none_or(|host| host == name.as_str()));
    let mut of_types: BTreeMap<_, Vec<&MachineRow>> = BTreeMap::new();
    for row in &rows {
        of_types.entry(&row.host_type).or_default().push(row);
    }
    let mut waiting: BTreeMap<_, usize> = BTreeMap::new();
    for wait in queue.waiting.iter() {
        *waiting.entry(&wait.host_type).or_default() += 1;
    }
    let lent = by_machine(&loans);
    for name in names {
        let conf = config.hosts.get(name);
        let rows = of_types.remove(name).unwrap_or_default();
        let mut machines: Vec<MachineView> = rows.into_iter().map(|row| with_loan(row, &lent)).collect();
        if conf.is_none() && !machines.iter().any(|machine| machine.connected) {
            continue;
        }
        machines.sort_by_key(|machine| !machine.connected);
        let builders = config
            .builders
            .iter()
            .filter(|(_, builder)| &builder.host == name);
        let builders: Vec<String> = builders.map(|(name, _)| name.to_string()).collect();
        let connected = machines.iter().filter(|machine| machine.connected).count();
        let busy = machines
            .iter()
            .filter(|machine| machine.connected && (machine.running.is_some() || machine.lent.is_some()))
            .count();
        let (extent, shown) = Window { from: query.from }.cut(machines);
        host_types.push(HostTypeView {
            name: name.to_string(),
            pool: conf.map_or("", |conf| pool(conf)).to_owned(),
            notes: conf.map(|conf| conf.notes.clone()).unwrap_or_default(),
            owners: conf.map(|conf| conf.owners.clone()).unwrap_or_default(),
            connected,
            expected: conf.map_or(0, expected),
            busy,
            waiting: waiting.get(name).copied().unwrap_or(0),
            builders_in_all: builders.len(),
            builders: builders.into_iter().take(ROWS).collect(),
            extent,
            machines: shown,
        });
    }
    let view = MachinesPage { host_types };
    Ok(visit.answer(&view, |view| draw_all(view, visit.now)))
}

fn by_machine(loans: &[LoanRow]) -> BTreeMap<&MachineId, &LoanRow> {
    loans.iter().map(|row| (&row.loan.machine, row)).collect()
}

fn with_loan(row: &MachineRow, lent: &BTreeMap<&MachineId, &LoanRow>) -> MachineView {
    let loan = lent.get(&row.machine);
    MachineView {
        lent: loan.map(|lent| lent.loan.name.clone()),
        ..row.into()
    }
}

fn pool(host: &Host) -> &'static str {
    match host.pool {
        Pool::Local { .. } => "local",
        Pool::Reverse { .. } => "reverse",
    }
}

pub async fn machine(State(app): State<App>, visit: Visit, Path(name): Path<String>) -> Answer {
    let name: MachineId = parsed(&name, "machine")?;
    let row = app.store.machine(&name).await?;
    let row = row.ok_or_else(|| {
        Problem::not_found("no_machine", format!("no machine `{name}` was ever connected"))
            .hint("/machines has those that are, and how many are missing.")
    })?;
    let filter = BuildFilter {
        machine: Some(name),
        ..BuildFilter::default()
    };
    let builds = app.store.builds(&filter, LISTED).await?;
    let config = app.live.config();
    let host = config.hosts.get(&row.host_type);
    let view = MachinePage {
        machine: with_loan(&row, &by_machine(&app.store.loans().await?)),
        notes: host.map(|host| host.notes.clone()).unwrap_or_default(),
        owners: host.map(|host| host.owners.clone()).unwrap_or_default(),
        builds: builds.iter().map(BuildView::from).collect(),
    };
    Ok(visit.answer(&view, |view| draw(view, visit.now)))
}

fn draw_all(view: &MachinesPage, now: Timestamp) -> Page {
    let body = html! {
        h1 { "Machines" }
        @if view.host_types.is_empty() {
            (empty("No host type yet", html! { "Add a table " code { "[host.NAME]" } " with a " code { "pool" } " to burrow.toml." }))
        }
        @for host in &view.host_types { (draw_type(host, now)) }
    };
    page("Machines", Section::Machines, true, body)
}

fn draw_type(host: &HostTypeView, now: Timestamp) -> Markup {
    let missing = host.expected.saturating_sub(host.connected);
    html! {
        section id=(host.name) {
            div.bar {
                h2 { (host.name) " " span.dim { (host.pool) } }
                span { (host.connected) " of " (host.expected.max(host.connected)) " connected, " (host.busy) " at work" }
                @if missing > 0 { span.state.failed { (missing) " missing" } }
                @if host.waiting > 0 { a href="/queue" { (plural(host.waiting as u64, "build")) " waiting" } }
            }
            @if !host.notes.is_empty() { p { (plain(&host.notes)) } }
            p.dim {
                @if host.builders.is_empty() { "No builder uses it." } @else { "For " @for (n, builder) in host.builders.iter().enumerate() { @if n > 0 { ", " } a href=(link("/builder/", builder)) { (builder) } } @if host.builders_in_all > host.builders.len() { " and " (host.builders_in_all - host.builders.len()) " more" } "." }
                @if !host.owners.is_empty() { " Cared for by " (plain(&host.owners.join(", "))) "." }
            }
            @if host.machines.is_empty() && missing == 0 { p.dim { "None expected, none there." } }
            @else {
                (table(&["Machine", "State", "Since", "Buildlet", "Where"], html! {
                    @for machine in &host.machines {
                        tr {
                            th.nowrap scope="row" { a href=(link("/machine/", &machine.name)) { (machine.name) } }
                            td { (doing(machine)) }
                            td.nowrap { (when(now, machine.changed)) }
                            td.nowrap { (plain(&machine.software)) }
                            td.nowrap { (plain(&machine.address)) }
                        }
                    }
                    @if missing > 0 {
                        tr.missing { th scope="row" { (missing) " missing" } td colspan="4" {
                            @if host.pool == "reverse" { "Expected to dial in. A new one needs a key: " code { "burrow key new NAME --host-type " (host.name) } }
                            @else { "The farm starts these by itself; its log says why it does not." }
                        } }
                    }
                }))
                (part::extent(&format!("/machines?host={}&", segment(&host.name)), &host.extent, host.machines.len()))
            }
        }
    }
}

fn doing(machine: &MachineView) -> Markup {
    html! {
        @let build = machine.running.as_deref().and_then(|attempt| attempt.split('.').next());
        @if !machine.connected {
            span.state { (web::icon("cancelled")) "gone" } " " span.dim { (plain(&machine.why_gone)) }
            @if let Some(build) = build { " " a href={"/build/" (build)} { "#" (build) " waits for it" } }
        } @else if let Some(build) = build {
            a.state.running href={"/build/" (build)} { (web::icon("running")) "at work on #" (build) }
        } @else if let Some(lent) = &machine.lent {
            a.state.running href="/gomotes" { (web::icon("running")) "lent as " (lent) }
        } @else { span.state.passed { (web::icon("passed")) "free" } }
    }
}

fn draw(view: &MachinePage, now: Timestamp) -> Page {
    let machine = &view.machine;
    let body = html! {
        div.head {
            p.crumbs { a href="/machines" { "Machines" } " / " a href={"/machines#" (machine.host_type)} { (machine.host_type) } }
            div.bar { h1 { (machine.name) } (doing(machine)) }
            @if !view.notes.is_empty() { p { (plain(&view.notes)) } }
        }
        @if !machine.connected {
            p.note.infra { strong { "Gone since " (when(now, machine.changed)) } @if !machine.why_gone.is_empty() { ": " (plain(&machine.why_gone)) } ". "
                @if machine.pool == "reverse" { "It comes back when its buildlet dials in again: look whether it runs there and reaches this farm." }
                @else { "The farm starts its own machines again by itself." } }
        }
        dl.facts {
            div { dt { "Host type" } dd { (machine.host_type) " (" (machine.pool) ")" } }
            div { dt { @if machine.connected { "Connected since" } @else { "Last seen" } } dd { (when(now, machine.changed)) } }
            div { dt { "First seen" } dd { (when(now, machine.first_seen)) } }
            div { dt { "Buildlet" } dd { (plain(&machine.software)) } }
            div { dt { "Where" } dd { (plain(&machine.address)) } }
            @if !view.owners.is_empty() { div { dt { "Cared for by" } dd { (plain(&view.owners.join(", "))) } } }
        }
        section {
            h2 { "Builds on it" }
            @if view.builds.is_empty() { (empty("It has built nothing yet", html! { a href="/queue" { "The queue" } " tells what waits for its host type." })) }
            @else { (part::builds(&view.builds, now)) p { a href={"/builds?machine=" (web::segment(&machine.name))} { "All builds on it" } } }
        }
    };
    page(format!("machine {}", machine.name), Section::Machines, true, body)
}
