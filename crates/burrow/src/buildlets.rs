use std::path::PathBuf;

use clap::Subcommand;
use stage0::manifest::{Summary, Version};
use stage0::publish;

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::farm_file;
use crate::secrets::configured;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  burrow buildlets new-key ~/signer                          once; its public half goes to all machines
  burrow buildlets sign --key ~/signer --version 0.2.0 site  site/buildlet.linux-amd64, site/buildlet.linux-arm64, ...
  burrow buildlets publish site                              on the farm")]
pub struct Buildlets {
    /// Configuration that says where state is [default: ./burrow.toml if there]
    #[arg(long, value_name = "FILE|DIR")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key to sign with, and print its public half
    #[command(after_help = "Example:\n  burrow buildlets new-key ~/signer")]
    NewKey {
        /// The file to write; must not be there. Keep it off the farm
        file: PathBuf,
    },
    /// Write the signed manifest of the files buildlet.SYSTEM-PROCESSOR of a folder
    #[command(after_help = "Example:\n  burrow buildlets sign --key ~/signer --version 0.2.0 site")]
    Sign {
        /// What `new-key` wrote
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Of the buildlets
        #[arg(long, value_name = "A.B.C", value_parser = parse_version)]
        version: Version,
        /// From which version on buildlets may be run at all [default: the one that is signed]
        #[arg(long, value_name = "A.B.C", value_parser = parse_version)]
        minimum: Option<Version>,
        /// A later one replaces an earlier one, whatever their versions [default: the time in seconds]
        #[arg(long, value_name = "N")]
        serial: Option<u64>,
        /// Folder of the binaries
        dir: PathBuf,
    },
    /// Have this farm serve a signed folder
    #[command(after_help = "Example:\n  burrow buildlets publish site")]
    Publish {
        /// What was signed
        dir: PathBuf,
    },
    /// Show what this farm serves
    #[command(after_help = "Example:\n  burrow buildlets show --json")]
    Show,
}

pub fn buildlets(global: &Global, buildlets: &Buildlets) -> Result<Exit, Failure> {
    let served = || {
        let state = configured(global, buildlets.config.as_deref())?.farm.state_dir;
        farm_file::make_state_dir(&state)?;
        Ok::<_, Failure>(state.join(coordinator::BUILDLETS))
    };
    match &buildlets.command {
        Command::NewKey { file } => println!("{}", publish::new_key(file).map_err(Failure::new)?),
        Command::Sign {
            key,
            version,
            minimum,
            serial,
            dir,
        } => {
            let minimum = minimum.unwrap_or(*version);
            if minimum > *version {
                return Err(Failure::usage(format!(
                    "the minimum {minimum} is above the version {version}"
                )));
            }
            let kinds = publish::sign(key, *version, minimum, *serial, dir).map_err(Failure::new)?;
            eprintln!(
                "signed {} for {kinds} kinds of machine",
                dir.join(publish::MANIFEST).display()
            );
        }
        Command::Publish { dir } => {
            let published = publish::publish(dir, &served()?).map_err(Failure::new)?;
            show(global, Some(&published));
        }
        Command::Show => {
            let there = publish::summary_of_served(&served()?).map_err(Failure::new)?;
            show(global, there.as_ref());
        }
    }
    Ok(Exit::Done)
}

fn show(global: &Global, there: Option<&Summary>) {
    let binaries = there.map_or(&[][..], |there| &there.binaries);
    if global.json {
        let binary = |(target, binary): &(stage0::manifest::Target, stage0::manifest::Binary)| {
            serde_json::json!({
                "target": target.to_string(), "name": binary.name, "bytes": binary.size,
                "sha256": stage0::manifest::hex(&binary.sha256),
            })
        };
        let told = there.map(|there| {
            serde_json::json!({
                "serial": there.serial, "version": there.version.to_string(), "minimum": there.minimum.to_string(),
                "binaries": binaries.iter().map(binary).collect::<Vec<_>>(),
            })
        });
        println!("{}", serde_json::json!(told));
        return;
    }
    match there {
        None => println!("no buildlets are published"),
        Some(there) => println!(
            "version {}, serial {}, no older than {}",
            there.version, there.serial, there.minimum
        ),
    }
    for (target, binary) in binaries {
        println!("  {target}: {} bytes", binary.size);
    }
}

fn parse_version(text: &str) -> Result<Version, String> {
    Version::parse(text).ok_or_else(|| "wanted A.B.C".to_owned())
}
