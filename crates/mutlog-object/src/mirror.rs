use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use mutlog::{Disk, Folder, FolderDisk, Lease, Records, SegmentFile, SegmentNumber, State, Sum};
use object_store::PutMode;

use crate::store::Store;

const LEASE: &str = "lease";

/// A disk whose every commit is in the store before it counts.
pub struct Mirror {
    folder: FolderDisk,
    store: Store,
    /// Ours in the store.
    counter: u64,
    /// What was appended to the growing segment and is not in the store, and where it begins.
    waiting: Option<(SegmentNumber, u64, Vec<u8>)>,
    /// How much of each growing segment the store has.
    stored: BTreeMap<SegmentNumber, u64>,
}

/// Takes the log that the store holds into the folder, and the lease on both.
///
/// A store that holds nothing, or only the first segments of what the folder holds, takes the rest. A folder
/// that holds a part of what the store holds is brought up to date; what it has beyond was told to nobody, and is
/// cut. Two that hold different logs are refused, and so is a store that lost what was told.
pub fn open(folder: &Folder, store: Store) -> anyhow::Result<Mirror> {
    let lease = Lease::take(folder.dir()).context("lock the folder")?;
    let counter = take_lease(&store).context("take the lease in the object store")?;
    let objects = store.list().context("list the objects of the log")?;
    let held = Held::from(&objects)?;
    let names = folder.names().context("list the folder")?;
    let ours: Vec<SegmentFile> = names.iter().filter_map(|name| SegmentFile::parse(name)).collect();
    let has_all = held.growing.is_empty() && held.sealed.values().all(|file| ours.contains(file));
    let stored = match has_all {
        true => upload(folder, &store, &held)?,
        false => download(folder, &store, &held, &ours)?,
    };
    Ok(Mirror {
        folder: FolderDisk::new(folder.clone(), lease),
        store,
        counter,
        waiting: None,
        stored: stored.into_iter().collect(),
    })
}

/// The objects of a log.
#[derive(Default)]
struct Held {
    sealed: BTreeMap<SegmentNumber, SegmentFile>,
    /// Of each growing segment the offsets of its parts, with their lengths.
    growing: BTreeMap<SegmentNumber, BTreeMap<u64, u64>>,
}

impl Held {
    fn from(objects: &[(String, u64)]) -> anyhow::Result<Held> {
        let mut held = Held::default();
        for (name, len) in objects {
            if let Some(file) = SegmentFile::parse(name).filter(|file| file.state != State::Growing) {
                if let Some(other) = held.sealed.insert(file.number, file) {
                    bail!(
                        "the object store holds two segments {}; one log has one",
                        other.number
                    );
                }
            } else if let Some((number, offset)) = parse_part(name) {
                held.growing.entry(number).or_default().insert(offset, *len);
            }
        }
        // Sealed between the last write and the last deletion.
        held.growing.retain(|number, _| !held.sealed.contains_key(number));
        Ok(held)
    }
}

fn part(number: SegmentNumber, offset: u64) -> String {
    format!("growing/{number}/{offset:012}")
}

fn parse_part(name: &str) -> Option<(SegmentNumber, u64)> {
    let (number, offset) = name.strip_prefix("growing/")?.split_once('/')?;
    Some((SegmentNumber(number.parse().ok()?), offset.parse().ok()?))
}

fn take_lease(store: &Store) -> io::Result<u64> {
    let before = store.get(LEASE)?;
    let (counter, mode) = match before {
        Some((bytes, version)) => (counter_in(&bytes) + 1, PutMode::Update(version)),
        None => (1, PutMode::Create),
    };
    store.put(LEASE, counter.to_string().into(), mode)?;
    Ok(counter)
}

fn counter_in(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    text.trim().parse().unwrap_or(0)
}

/// Gives the store what only the folder holds, but for what stands behind the last commit.
fn upload(folder: &Folder, store: &Store, held: &Held) -> anyhow::Result<Option<(SegmentNumber, u64)>> {
    let mut growing = None;
    for file in folder
        .log()?
        .into_iter()
        .filter(|file| !held.sealed.contains_key(&file.number))
    {
        let path = folder.path(&file);
        let bytes = fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
        match file.state {
            State::Sealed(sum) => {
                ensure!(Sum::of(&bytes) == sum, "`{file}` is not what its name says");
                store.put(&file.to_string(), bytes.into(), PutMode::Create)?;
            }
            State::Growing => {
                let durable = durable_len(folder, file.number, &bytes);
                let bytes = Bytes::from(bytes).slice(..durable);
                if !bytes.is_empty() {
                    store.put(&part(file.number, 0), bytes, PutMode::Create)?;
                }
                growing = Some((file.number, durable as u64));
            }
        }
    }
    Ok(growing)
}

/// How much of a growing segment a [`mutlog::Writer`] will find: what its notes say, or the whole records of
/// a folder without.
fn durable_len(folder: &Folder, number: SegmentNumber, bytes: &[u8]) -> usize {
    let Ok(text) = fs::read_to_string(folder.dir().join("durable")) else {
        let mut records = Records::new(bytes, 0);
        records.by_ref().for_each(drop);
        return usize::try_from(records.offset()).expect("within the bytes");
    };
    let parse = |line: &str| {
        let mut words = line.strip_suffix('\n')?.split(' ');
        let (of, len) = (words.next()?, words.next()?);
        len.parse::<usize>().ok().filter(|_| of == number.to_string())
    };
    let noted = text.split_inclusive('\n').filter_map(parse).next_back();
    noted.unwrap_or(0).min(bytes.len())
}

/// Makes the folder hold what the store holds.
fn download(
    folder: &Folder,
    store: &Store,
    held: &Held,
    ours: &[SegmentFile],
) -> anyhow::Result<Option<(SegmentNumber, u64)>> {
    let next = SegmentNumber(u32::try_from(held.sealed.len()).context("too many segments")?);
    if let Some((missing, _)) = (0..).zip(held.sealed.keys()).find(|(at, number)| number.0 != *at) {
        bail!(
            "segment {} is missing in the object store",
            SegmentNumber(missing)
        );
    }
    if held.growing.keys().any(|number| *number != next) {
        bail!("segment {next} is missing in the object store");
    }
    for file in ours {
        match (held.sealed.get(&file.number), file.state) {
            (Some(theirs), State::Sealed(_)) if theirs == file => {}
            (Some(theirs), State::Growing) => check_beginning(folder, store, file, &theirs.to_string())?,
            (None, State::Growing) if file.number == next => {}
            _ => bail!("the folder holds `{file}`, which is of another log than the object store's"),
        }
    }
    for file in held.sealed.values().filter(|file| !ours.contains(file)) {
        let name = file.to_string();
        let (bytes, _) = store
            .get(&name)?
            .with_context(|| format!("the object `{name}` is gone"))?;
        let found = State::Sealed(Sum::of(&bytes));
        ensure!(
            found == file.state,
            "the object `{name}` is not what its name says"
        );
        write_whole(folder, &name, &bytes)?;
        remove(folder, &growing_file(file.number))?;
    }
    let mut whole = Vec::new();
    let mut parts = held.growing.get(&next).into_iter().flatten();
    while let Some((offset, _)) = parts.next().filter(|(offset, _)| **offset == whole.len() as u64) {
        let name = part(next, *offset);
        let (bytes, _) = store
            .get(&name)?
            .with_context(|| format!("the object `{name}` is gone"))?;
        whole.extend_from_slice(&bytes);
    }
    let file = growing_file(next);
    let kept = fs::read(folder.dir().join(&file)).or_else(none_if_missing)?;
    // What the folder has beyond was never told of, as the store comes first.
    let told = durable_len(folder, next, &kept);
    ensure!(
        told <= whole.len(),
        "the object store lost the end of segment {next}: {told} bytes were told of, and it has {}",
        whole.len()
    );
    ensure!(
        kept[..told] == whole[..told],
        "the folder holds another segment {next} than the object store"
    );
    match whole.is_empty() {
        true => remove(folder, &file)?,
        false if kept != whole => write_whole(folder, &file, &whole)?,
        false => {}
    }
    // As the writer notes it. Before this, what the notes say is a part of what is there.
    let note = match whole.is_empty() {
        true => String::new(),
        false => format!("{next} {} {}\n", whole.len(), Sum::of(&whole)),
    };
    write_whole(folder, "durable", note.as_bytes())?;
    Ok(Some((next, whole.len() as u64)))
}

fn growing_file(number: SegmentNumber) -> String {
    let state = State::Growing;
    SegmentFile { number, state }.to_string()
}

/// The process before died between sealing there and here.
fn check_beginning(folder: &Folder, store: &Store, file: &SegmentFile, object: &str) -> anyhow::Result<()> {
    let kept = fs::read(folder.path(file)).with_context(|| format!("read `{file}`"))?;
    let (bytes, _) = store
        .get(object)?
        .with_context(|| format!("the object `{object}` is gone"))?;
    let told = durable_len(folder, file.number, &kept);
    ensure!(
        bytes.get(..told) == Some(&kept[..told]),
        "the folder holds another `{file}` than the object store"
    );
    Ok(())
}

fn none_if_missing(error: io::Error) -> io::Result<Vec<u8>> {
    match error.kind() {
        ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    }
}

fn remove(folder: &Folder, name: &str) -> anyhow::Result<()> {
    match fs::remove_file(folder.dir().join(name)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove `{name}`"))
        }
        _ => Ok(()),
    }
}

fn write_whole(folder: &Folder, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let part = folder.dir().join(format!("{name}.part"));
        fs::write(&part, bytes)?;
        fs::File::open(&part)?.sync_all()?;
        fs::rename(part, folder.dir().join(name))?;
        fs::File::open(folder.dir())?.sync_all()
    };
    write().with_context(|| format!("write `{name}`"))
}

impl Mirror {
    fn check_lease(&self) -> io::Result<()> {
        let found = self.store.get(LEASE)?;
        match found.map(|(bytes, _)| counter_in(&bytes)) {
            Some(counter) if counter == self.counter => Ok(()),
            found => Err(io::Error::other(format!(
                "another writer took over the log in the object store: its lease is {}, and ours was {}",
                found.unwrap_or(0),
                self.counter
            ))),
        }
    }

    fn delete_parts(&mut self, number: SegmentNumber, from: u64) -> io::Result<()> {
        let mut parts: Vec<(u64, String)> = Vec::new();
        for (name, _) in self.store.list()? {
            if let Some((_, offset)) =
                parse_part(&name).filter(|(of, offset)| *of == number && *offset >= from)
            {
                parts.push((offset, name));
            }
        }
        // From the last on: what is left has no gap.
        parts.sort();
        parts
            .iter()
            .rev()
            .try_for_each(|(_, name)| self.store.delete(name))
    }
}

impl Disk for Mirror {
    fn names(&self) -> io::Result<Vec<String>> {
        self.folder.names()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.folder.read(name)
    }

    fn stamp(&self, name: &str) -> io::Result<String> {
        self.folder.stamp(name)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.folder.append(name, bytes)?;
        if let Some(file) = growing(name) {
            let stored = self.stored.get(&file.number).copied().unwrap_or(0);
            let waiting = self.waiting.get_or_insert((file.number, stored, Vec::new()));
            if waiting.0 != file.number {
                return Err(io::Error::other("two segments grow"));
            }
            waiting.2.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.folder.sync(name)?;
        let Some(file) = growing(name) else { return Ok(()) };
        if let Some((number, offset, bytes)) = self.waiting.take_if(|waiting| waiting.0 == file.number) {
            self.check_lease()?;
            let end = offset + bytes.len() as u64;
            self.store
                .put(&part(number, offset), bytes.into(), PutMode::Create)?;
            self.stored.insert(number, end);
        }
        Ok(())
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.folder.truncate(name, len)?;
        let Some(file) = growing(name) else { return Ok(()) };
        self.check_lease()?;
        self.delete_parts(file.number, len)?;
        let stored = self.stored.get(&file.number).copied().unwrap_or(0);
        if stored > len {
            // A part that ends behind the cut is written anew, as far as it holds.
            let whole = self.folder.read(name)?;
            self.delete_parts(file.number, 0)?;
            self.store
                .put(&part(file.number, 0), whole.into(), PutMode::Create)?;
        }
        self.stored.insert(file.number, len);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let Some(file) = growing(from) else {
            return self.folder.rename(from, to);
        };
        self.check_lease()?;
        let whole = self.folder.read(from)?;
        // One from before a crash has the same content, as its name says.
        self.store.put(to, whole.into(), PutMode::Overwrite)?;
        self.folder.rename(from, to)?;
        self.stored.remove(&file.number);
        // They may be another's by now.
        self.check_lease()?;
        self.delete_parts(file.number, 0)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        if let Some(file) = SegmentFile::parse(name) {
            self.check_lease()?;
            self.store.delete(name)?;
            self.delete_parts(file.number, 0)?;
            self.stored.remove(&file.number);
        }
        self.folder.remove(name)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.folder.replace(name, bytes)
    }
}

fn growing(name: &str) -> Option<SegmentFile> {
    SegmentFile::parse(name).filter(|file| file.state == State::Growing)
}
