use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use ids::HostType;
use store::read::{EnrolmentRow, IdentityRow};

use crate::args::{Global, parse_duration};
use crate::failure::{Exit, Failure};
use crate::secrets::{failure, one_of, open, table, wall, way_in};
use crate::show;

/// A machine is brought in by somebody who stands before it, as a rule.
const LIFETIME: &str = "1h";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  burrow enroll new --host-type rack-arm64               prints the command to be run on the machine
  burrow enroll list
  burrow enroll revoke rack-7")]
pub struct Enroll {
    /// Configuration that says where the store is [default: ./burrow.toml if there]
    #[arg(long, value_name = "FILE|DIR")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token for one machine, and print the command to be run there, this once
    #[command(after_help = "Example:\n  burrow enroll new --host-type rack-arm64 --name rack-7 --expires 2d")]
    New {
        /// Host type of the machine
        #[arg(long, value_name = "TYPE")]
        host_type: HostType,
        /// What the machine will be called [default: its own host name]
        #[arg(long, value_parser = parse_name)]
        name: Option<String>,
        /// How long the token can be used: 30m, 12h, 90d
        #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = LIFETIME)]
        expires: Duration,
    },
    /// List machines with keys of their own, and tokens that wait for one
    List,
    /// Take a machine's key back, or a token that was not used yet
    ///
    /// The machine's connection ends within a minute. It comes back with a new token only.
    Revoke {
        /// Name of the machine; `token N` for a token, with its number in `enroll list`
        #[arg(required = true, num_args = 1..=2, value_name = "NAME|token N")]
        which: Vec<String>,
    },
}

pub async fn enroll(global: &Global, enroll: &Enroll) -> Result<Exit, Failure> {
    let (config, store) = open(global, enroll.config.as_deref()).await?;
    let now = wall();
    match &enroll.command {
        Command::New {
            host_type,
            name,
            expires,
        } => {
            let name = name.as_deref().unwrap_or_default();
            let made = store.create_enrolment(name, host_type, now + *expires, now).await;
            let made = made.map_err(failure)?;
            let way = way_in(&config, host_type, "the machine is refused")?;
            let way = way.unwrap_or_else(|| "-coordinator=HOST:PORT".to_owned());
            let command = format!("buildlet {way} -enroll={}", made.secret);
            let until = show::time(made.row.expires);
            if global.json {
                let told = serde_json::json!({
                    "id": made.row.id, "token": made.secret, "expires": until, "command": command,
                });
                println!("{told}");
            } else {
                println!("{command}");
                eprintln!("for one machine, until {until}; the token is not shown again");
            }
        }
        Command::List => {
            let machines = store.identities().await.map_err(failure)?;
            let tokens = store.enrolments().await.map_err(failure)?;
            list(global, &machines, &tokens);
        }
        Command::Revoke { which } => match which.as_slice() {
            [word, number] if word == "token" => {
                let open = store.enrolments().await.map_err(failure)?.into_iter();
                let open = open.filter(|row| row.used.is_none() && row.revoked.is_none());
                // Tokens have no name of their own.
                let id = one_of("enroll", number, open.map(|row| (row.id, String::new())))?;
                store.revoke_enrolment(id, now).await.map_err(failure)?;
                println!("token {id} makes nothing known any more");
            }
            [name] => {
                let known = store.identities().await.map_err(failure)?.into_iter();
                let known = known.filter(|row| row.revoked.is_none());
                let id = known.filter(|row| row.name == *name).map(|row| row.id).next();
                let id = id.ok_or_else(|| {
                    Failure::new(format!("no machine `{}` is enrolled", show::plain(name)))
                        .hint("`burrow enroll list` shows their names")
                })?;
                store.revoke_identity(id, now).await.map_err(failure)?;
                println!("the key of {} opens nothing any more", show::plain(name));
            }
            _ => {
                return Err(Failure::usage(
                    "wanted the name of a machine, or `token` and a number",
                ));
            }
        },
    }
    store.close().await;
    Ok(Exit::Done)
}

/// Names travel in headers and stand in addresses.
fn parse_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=100).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err("wanted up to 100 letters, digits, `.`, `_` and `-`".to_owned())
}

fn list(global: &Global, machines: &[IdentityRow], tokens: &[EnrolmentRow]) {
    let waiting = tokens.iter().filter(|row| row.used.is_none());
    if global.json {
        let machine = |row: &IdentityRow| {
            serde_json::json!({
                "name": row.name, "host_type": row.host_type.as_str(), "public_key": row.public_key,
                "enrolled": show::time(row.created),
                "revoked": row.revoked.map(show::time),
                "last_seen": row.last_used.map(show::time),
            })
        };
        let token = |row: &EnrolmentRow| {
            serde_json::json!({
                "id": row.id, "name": row.name, "host_type": row.host_type.as_str(),
                "created": show::time(row.created), "expires": show::time(row.expires),
                "revoked": row.revoked.map(show::time),
            })
        };
        let told = serde_json::json!({
            "machines": machines.iter().map(machine).collect::<Vec<_>>(),
            "tokens": waiting.map(token).collect::<Vec<_>>(),
        });
        println!("{told}");
        return;
    }
    let mut rows = table(&["NAME", "HOST TYPE", "ENROLLED", "LAST REGISTERED", "STATE"]);
    for row in machines {
        rows.add_row([
            show::plain(&row.name),
            row.host_type.to_string(),
            show::time(row.created),
            row.last_used.map_or("never".to_owned(), show::time),
            row.revoked
                .map_or("good".to_owned(), |at| format!("revoked {}", show::time(at))),
        ]);
    }
    for row in waiting {
        let name = match row.name.as_str() {
            "" => String::new(),
            name => format!(" for {}", show::plain(name)),
        };
        rows.add_row([
            format!("(token {}{name})", row.id),
            row.host_type.to_string(),
            String::new(),
            String::new(),
            match row.revoked {
                Some(at) => format!("revoked {}", show::time(at)),
                None if row.expires <= wall() => format!("expired {}", show::time(row.expires)),
                None => format!("not used, until {}", show::time(row.expires)),
            },
        ]);
    }
    println!("{rows}");
}

#[cfg(test)]
mod tests {
    use super::parse_name;

    #[test]
    fn a_machines_name_is_plain() {
        assert!(parse_name("rack-7.example_org").is_ok());
        for bad in ["", "a b", "a/b", "\u{e4}", &"x".repeat(101)] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }
}
