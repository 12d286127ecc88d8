//! Systems where a command can be kept within nothing but its output and its time: what else is asked for is
//! refused.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::{Abilities, Ability, Account, Bounds, Limits, check, resolve};
use crate::command::Refusal;

pub struct Containment {
    abilities: Abilities,
    bounds: Bounds,
    workdir: PathBuf,
}

pub struct Cage {
    pub limits: Limits,
}

impl Containment {
    pub fn open(bounds: Bounds, workdir: &Path, _instance: &str) -> Result<Arc<Containment>, String> {
        let cannot = || -> Ability { Err("this is done on Linux alone".to_owned()) };
        let abilities = Abilities {
            tree: cannot(),
            memory: cannot(),
            processes: cannot(),
            no_network: cannot(),
            confined: cannot(),
            user: cannot(),
            metadata: cannot(),
        };
        check(&abilities, &bounds)?;
        Ok(Arc::new(Containment {
            abilities,
            bounds,
            workdir: workdir.to_owned(),
        }))
    }

    pub fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub fn cage(&self, asked: &Limits, _command: &mut Command) -> Result<Cage, Refusal> {
        Ok(Cage {
            limits: resolve(&self.abilities, &self.bounds, asked)?,
        })
    }

    pub fn make_workdir(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.workdir)
    }

    pub fn env(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    pub fn close(&self) {}
}

impl Cage {
    pub fn kill(&self) {}

    pub fn close(&self) -> Account {
        Account::default()
    }
}

/// There is no other user here.
pub enum AsBuilder {}

/// What is done to files is done as this program's own user.
pub fn as_builder(_containment: &Containment) -> io::Result<Option<AsBuilder>> {
    Ok(None)
}
