use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use buildlet_api::keys::MasterKey;
use comfy_table::{Table, presets};
use config::{Config, Pool};
use ids::{HostType, Timestamp};
use store::Store;
use store::read::{KeyRow, Role, TokenRow};

use crate::args::{Global, Key, KeyCommand, Token, TokenCommand};
use crate::failure::{Exit, Failure, at_path};
use crate::farm_file;
use crate::server::TOKEN_FILE;
use crate::show;

/// Source: golang/build `cmd/coordinator/coordinator.go`, `devBuildletKey`'s master.
const DEVELOPMENT_MASTER: &[u8] = b"gophers rule";

/// The name of the token that `up` makes for those who may read its state folder.
const OWN_TOKEN: &str = "up";

pub async fn token(global: &Global, token: &Token) -> Result<Exit, Failure> {
    let (_, store) = open(global, token.config.as_deref()).await?;
    let now = wall();
    match &token.command {
        TokenCommand::New { name, role, expires } => {
            let made = store
                .create_token(name, (*role).into(), expires.map(|time| now + time), now)
                .await
                .map_err(failure)?;
            tell_once(global, "token", made.row.id, name, &made.secret);
        }
        TokenCommand::List => list_tokens(global, &store.tokens().await.map_err(failure)?),
        TokenCommand::Revoke { which } => {
            let in_use = store.tokens().await.map_err(failure)?.into_iter();
            let in_use = in_use.filter(|row| row.revoked.is_none());
            let id = one_of("token", which, in_use.map(|row| (row.id, row.name)))?;
            store.revoke_token(id, now).await.map_err(failure)?;
            println!("token {id} allows nothing any more");
        }
    }
    Ok(Exit::Done)
}

pub async fn key(global: &Global, key: &Key) -> Result<Exit, Failure> {
    if let KeyCommand::Derive {
        master_key,
        development: _,
        names,
    } = &key.command
    {
        return derive(master_key.as_deref(), names);
    }
    let (config, store) = open(global, key.config.as_deref()).await?;
    let now = wall();
    match &key.command {
        KeyCommand::New { name, host_type } => {
            let made = store.create_key(name, host_type, now).await.map_err(failure)?;
            tell_once(global, "key", made.row.id, name, &made.secret);
            if !global.json {
                tell_how_to_dial_in(&config, host_type)?;
            }
        }
        KeyCommand::List => list_keys(global, &store.keys().await.map_err(failure)?),
        KeyCommand::Revoke { which } => {
            let in_use = store.keys().await.map_err(failure)?.into_iter();
            let in_use = in_use.filter(|row| row.revoked.is_none());
            let id = one_of("key", which, in_use.map(|row| (row.id, row.name)))?;
            store.revoke_key(id, now).await.map_err(failure)?;
            println!("key {id} opens nothing any more");
        }
        KeyCommand::Derive { .. } => {}
    }
    Ok(Exit::Done)
}

/// The number of the one that is meant by its number or, if only one is called so, by its name.
pub fn one_of(kind: &str, which: &str, in_use: impl Iterator<Item = (i64, String)>) -> Result<i64, Failure> {
    let hint = format!("`burrow {kind} list` shows their numbers and names");
    let number = which.parse::<i64>().ok();
    let (mut named, mut numbered) = (Vec::new(), None);
    for (id, name) in in_use {
        if Some(id) == number {
            numbered = Some(id);
        }
        if name == which {
            named.push(id);
        }
    }
    match (numbered, &named[..]) {
        (Some(id), _) => Ok(id),
        (None, [id]) => Ok(*id),
        (None, []) => Err(Failure::new(format!("no {kind} `{}` is in use", show::plain(which))).hint(hint)),
        (None, _) => Err(Failure::new(format!(
            "{} in use are called `{}`",
            named.len(),
            show::plain(which)
        ))
        .hint(hint)),
    }
}

/// The token in the file `token` of the state folder; a new one when there is none that works. Only
/// its owner may read the file, and it is never printed.
pub async fn own_token(config: &Config, state_dir: &Path) -> Result<String, Failure> {
    let path = state_dir.join(TOKEN_FILE);
    let store = open_store(config).await?;
    let now = wall();
    if let Ok(kept) = std::fs::read_to_string(&path) {
        let kept = kept.trim().to_owned();
        if store.check_token(&kept, now).await.map_err(failure)?.is_some() {
            return Ok(kept);
        }
    }
    for old in store.tokens().await.map_err(failure)? {
        if old.name == OWN_TOKEN && old.revoked.is_none() {
            store.revoke_token(old.id, now).await.map_err(failure)?;
        }
    }
    let made = store
        .create_token(OWN_TOKEN, Role::Admin, None, now)
        .await
        .map_err(failure)?;
    write_secret(&path, &made.secret).map_err(|error| at_path("write", &path, &error))?;
    store.close().await;
    Ok(made.secret)
}

fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

fn derive(master: Option<&Path>, names: &[String]) -> Result<Exit, Failure> {
    let bytes = match master {
        None => DEVELOPMENT_MASTER.to_vec(),
        Some(path) if path == Path::new("-") => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .take(1 << 16)
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::new(format!("cannot read the master key: {error}")))?;
            bytes
        }
        Some(path) => std::fs::read(path).map_err(|error| at_path("read the master key", path, &error))?,
    };
    let master = MasterKey::parse(&bytes).map_err(|error| Failure::new(error.to_string()))?;
    for name in names {
        println!("{} {name}", master.builder_key(name));
    }
    Ok(Exit::Done)
}

pub async fn open(global: &Global, config: Option<&Path>) -> Result<(Config, Store), Failure> {
    let config = configured(global, config)?;
    if config.farm.store == config::StoreUrl::Embedded {
        farm_file::make_state_dir(&config.farm.state_dir)?;
    }
    let store = open_store(&config).await?;
    Ok((config, store))
}

/// The configuration that is named, or that of this folder; without one, that of a farm without a file.
pub fn configured(global: &Global, config: Option<&Path>) -> Result<Config, Failure> {
    let defaults = farm_file::defaults(global)?;
    let file = config.map(PathBuf::from).or_else(|| {
        let here = PathBuf::from(farm_file::NAME);
        here.exists().then_some(here)
    });
    Ok(match file {
        Some(path) => farm_file::load(&path, global, &defaults)?.config,
        None => {
            Config::check(&[], &defaults)
                .map_err(|problems| Failure::new(problems.to_string()))?
                .config
        }
    })
}

pub fn store_url(config: &Config) -> store::StoreUrl {
    match &config.farm.store {
        config::StoreUrl::Embedded => store::StoreUrl::Sqlite(config.farm.state_dir.join("farm.db")),
        config::StoreUrl::Postgres(url) => {
            store::StoreUrl::Postgres(store::PgUrl::new(url.expose().to_owned()))
        }
    }
}

pub async fn open_store(config: &Config) -> Result<Store, Failure> {
    Store::open(&store_url(config))
        .await
        .map_err(|error| anyhow::Error::from(error).into())
}

pub fn failure(error: store::StoreError) -> Failure {
    match error {
        store::StoreError::Conflict(why) => Failure::new(why),
        error => anyhow::Error::from(error).into(),
    }
}

fn tell_once(global: &Global, kind: &str, id: i64, name: &str, secret: &str) {
    if global.json {
        println!("{}", serde_json::json!({ "id": id, "name": name, kind: secret }));
        return;
    }
    println!("{secret}");
    eprintln!(
        "{kind} {id} `{}`; keep it now, it is not shown again",
        show::plain(name)
    );
}

/// What the owner of the machine does with the key, as far as the configuration tells.
fn tell_how_to_dial_in(config: &Config, host_type: &HostType) -> Result<(), Failure> {
    if let Some(way) = way_in(config, host_type, "the key opens nothing")? {
        eprintln!(
            "on the machine, with the key in a file:\n  GO_BUILD_KEY_PATH=FILE buildlet {way} -reverse-type={host_type}"
        );
    }
    Ok(())
}

/// The flags by which a machine of this host type finds the farm and knows it; `None` when it has no door. Warns of what
/// is missing for that, until when `nothing` comes of it.
pub fn way_in(config: &Config, host_type: &HostType, nothing: &str) -> Result<Option<String>, Failure> {
    match config.hosts.get(host_type).map(|host| &host.pool) {
        Some(Pool::Reverse { .. }) => {}
        Some(Pool::Local { .. }) => eprintln!(
            "warning: machines of host type `{host_type}` are started by the farm, none may dial in: `pool` is \"local\""
        ),
        None => eprintln!(
            "warning: the configuration has no host type `{host_type}`; until it has, with pool = \"reverse\", {nothing}"
        ),
    }
    let Some(door) = config.farm.listen_https else {
        eprintln!("warning: without `listen_https` in [farm] no machine can dial in");
        return Ok(None);
    };
    let trust = match config.farm.tls {
        // Of an authority that the machine trusts, or knows what to do about.
        Some(_) => String::new(),
        None => {
            let made = web::fingerprint(&config.farm.state_dir.join("tls/cert.pem"));
            let made = made.map_err(|why| Failure::from(anyhow::Error::from(why)))?;
            let known = made.unwrap_or("(shown once the farm was started)".to_owned());
            format!(" -fingerprint={known}")
        }
    };
    Ok(Some(format!(
        "-coordinator={}:{}{trust}",
        host(config),
        door.port()
    )))
}

/// Of the farm's address, where the configuration tells it.
fn host(config: &Config) -> String {
    let url = config.farm.public_url.as_deref();
    let host = url.and_then(|url| Some(url.parse::<http::Uri>().ok()?.host()?.to_owned()));
    host.unwrap_or_else(|| "HOST".to_owned())
}

fn list_tokens(global: &Global, rows: &[TokenRow]) {
    if global.json {
        let list: Vec<_> = rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "id": row.id, "name": row.name, "role": role_word(row.role),
                    "created": show::time(row.created),
                    "expires": row.expires.map(show::time),
                    "revoked": row.revoked.map(show::time),
                    "last_used": row.last_used.map(show::time),
                })
            })
            .collect();
        println!("{}", serde_json::json!(list));
        return;
    }
    let mut table = table(&["ID", "NAME", "ROLE", "CREATED", "EXPIRES", "LAST USED", "STATE"]);
    for row in rows {
        table.add_row(vec![
            row.id.to_string(),
            show::plain(&row.name),
            role_word(row.role).to_owned(),
            show::time(row.created),
            row.expires.map_or("never".to_owned(), show::time),
            row.last_used.map_or("never".to_owned(), show::time),
            state(row.revoked, row.expires),
        ]);
    }
    println!("{table}");
}

fn list_keys(global: &Global, rows: &[KeyRow]) {
    if global.json {
        let list: Vec<_> = rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "id": row.id, "name": row.name, "host_type": row.host_type.as_str(),
                    "created": show::time(row.created),
                    "revoked": row.revoked.map(show::time),
                    "last_used": row.last_used.map(show::time),
                })
            })
            .collect();
        println!("{}", serde_json::json!(list));
        return;
    }
    let mut table = table(&["ID", "NAME", "HOST TYPE", "CREATED", "LAST USED", "STATE"]);
    for row in rows {
        table.add_row(vec![
            row.id.to_string(),
            show::plain(&row.name),
            row.host_type.to_string(),
            show::time(row.created),
            row.last_used.map_or("never".to_owned(), show::time),
            state(row.revoked, None),
        ]);
    }
    println!("{table}");
}

fn state(revoked: Option<Timestamp>, expires: Option<Timestamp>) -> String {
    match (revoked, expires) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(at)) if at <= wall() => "expired".to_owned(),
        _ => "good".to_owned(),
    }
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Contributor => "contributor",
        Role::Admin => "admin",
    }
}

pub fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads);
    table
}

pub fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_the_farm_is_a_file_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TOKEN_FILE);
        // Of before, and of a farm that died while it wrote one.
        std::fs::write(&path, "old").unwrap();
        std::fs::write(path.with_extension("new"), "half").unwrap();
        write_secret(&path, "bt_x").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "bt_x\n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }

    #[test]
    fn what_is_revoked_is_meant_by_its_number_or_by_a_name_that_only_one_has() {
        let in_use = [(1, "amy"), (2, "bob"), (3, "bob"), (4, "2")];
        let meant = |which| {
            one_of(
                "key",
                which,
                in_use.map(|(id, name)| (id, name.to_owned())).into_iter(),
            )
            .ok()
        };
        assert_eq!(meant("1"), Some(1));
        assert_eq!(meant("amy"), Some(1));
        assert_eq!(meant("2"), Some(2), "the number, not the name");
        assert_eq!(meant("4"), Some(4));
        for not_one in ["bob", "eve", "9", ""] {
            assert_eq!(meant(not_one), None, "{not_one}");
        }
    }
}
