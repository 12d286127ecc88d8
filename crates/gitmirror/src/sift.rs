//! What of a commit's tree a machine can be given, found in the tar that git makes of it. Pure: bytes in, bytes out.
//!
//! A link that leads out of the tree, and a name that is no UTF-8, is refused by every machine of ours; golang/build's
//! agents refuse links (2018) or pass over them (2023). They are left out, and named.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

const BLOCK: usize = 512;

/// A header that carries a long name is not longer. Bytes.
const NAME_MAX: u64 = 1 << 20;

/// Up to so many names are compared; one takes about 16 bytes of memory.
const COMPARED_MAX: usize = 2_000_000;

/// Up to so many are named.
const NAMED: usize = 10;

/// What is to be known of a tree before it is built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oddities {
    /// Links that lead out of the tree: `NAME -> TARGET`.
    pub links_out: Names,
    /// Names that are no UTF-8.
    pub not_utf8: Names,
    /// Names that differ from another one in case alone.
    pub clashes: Names,
}

/// Some names, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    pub count: u64,
    pub first: Vec<String>,
}

impl Names {
    fn push(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(name());
        }
    }

    fn listed(&self) -> String {
        let more = match self.count - self.first.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}", self.first.join(", "))
    }
}

impl Oddities {
    /// Whether machines get something else than the whole tree.
    pub fn leaves_out(&self) -> bool {
        self.links_out.count + self.not_utf8.count > 0
    }

    /// In sentences, for the page of a build.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |names: &Names, what: &str| {
            if names.count > 0 {
                notes.push(format!("{what}: {}", names.listed()));
            }
        };
        note(
            &self.links_out,
            "Left out of the source, because they lead out of it",
        );
        note(
            &self.not_utf8,
            "Left out of the source, because their names are no UTF-8",
        );
        note(
            &self.clashes,
            "On a machine that does not tell `a` from `A` these replace other files of the source",
        );
        notes
    }
}

/// Passes a tar on to `out` without what no machine takes.
pub struct Sift<W> {
    out: W,
    oddities: Oddities,
    seen: HashSet<u64>,
    /// Of the block that is not whole yet.
    block: Vec<u8>,
    at: At,
    /// Headers that belong to the next entry, with what they hold; passed on with it or not at all.
    held: Vec<u8>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

enum At {
    Header,
    /// In the content of an entry, which takes so many bytes more with its padding.
    Content {
        left: u64,
        kept: bool,
    },
    /// In the content of a header of this kind: `len` bytes of it count.
    Held {
        left: u64,
        kind: u8,
        len: u64,
        text: Vec<u8>,
    },
}

impl<W: Write> Sift<W> {
    pub fn new(out: W) -> Sift<W> {
        Sift {
            out,
            oddities: Oddities::default(),
            seen: HashSet::new(),
            block: Vec::with_capacity(BLOCK),
            at: At::Header,
            held: Vec::new(),
            path: None,
            link: None,
            size: None,
        }
    }

    pub fn end(self) -> (W, Oddities) {
        (self.out, self.oddities)
    }

    fn header(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let kind = block[156];
        if block.iter().all(|&byte| byte == 0) {
            return self.out.write_all(&block);
        }
        let stated = number(&block[124..136]).ok_or_else(|| broken("a size in it is no number"))?;
        if matches!(kind, b'x' | b'L' | b'K') {
            if stated > NAME_MAX {
                return Err(broken("a name in it is longer than 1 MiB"));
            }
            self.held.extend(block);
            self.at = At::Held {
                left: padded(stated),
                kind,
                len: stated,
                text: Vec::new(),
            };
            return self.held_is_whole();
        }
        let kept = kind == b'g' || self.keep(&block);
        let size = match kind {
            // Links and folders have no content, whatever their header says.
            b'1'..=b'6' => 0,
            _ => self.size.unwrap_or(stated),
        };
        let held = std::mem::take(&mut self.held);
        (self.path, self.link, self.size) = (None, None, None);
        if kept {
            self.out.write_all(&held)?;
            self.out.write_all(&block)?;
        }
        if size > 0 {
            self.at = At::Content {
                left: padded(size),
                kept,
            };
        }
        Ok(())
    }

    fn keep(&mut self, block: &[u8]) -> bool {
        let path = self.path.take().unwrap_or_else(|| name_in(block));
        let Ok(path) = std::str::from_utf8(&path) else {
            let shown = path.escape_ascii().to_string();
            self.oddities.not_utf8.push(|| format!("`{shown}`"));
            return false;
        };
        if block[156] == b'2' {
            let link = self
                .link
                .take()
                .unwrap_or_else(|| field(&block[157..257]).to_vec());
            if leads_out(path.as_bytes(), &link) {
                let link = String::from_utf8_lossy(&link);
                self.oddities.links_out.push(|| format!("`{path} -> {link}`"));
                return false;
            }
        }
        let mut hasher = DefaultHasher::new();
        path.trim_end_matches('/').to_lowercase().hash(&mut hasher);
        if self.seen.len() < COMPARED_MAX && !self.seen.insert(hasher.finish()) {
            self.oddities.clashes.push(|| format!("`{path}`"));
        }
        true
    }

    fn held_is_whole(&mut self) -> io::Result<()> {
        let At::Held {
            left: 0,
            kind,
            len,
            text,
        } = &mut self.at
        else {
            return Ok(());
        };
        text.truncate(usize::try_from(*len).unwrap_or(usize::MAX));
        let (kind, text) = (*kind, std::mem::take(text));
        self.at = At::Header;
        match kind {
            b'L' => self.path = Some(field(&text).to_vec()),
            b'K' => self.link = Some(field(&text).to_vec()),
            _ => {
                for (key, value) in records(&text).ok_or_else(|| broken("a record in it is cut off"))? {
                    match key {
                        b"path" => self.path = Some(value.to_vec()),
                        b"linkpath" => self.link = Some(value.to_vec()),
                        b"size" => {
                            self.size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok())
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Sift<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let least = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        match &mut self.at {
            At::Header => {
                let taken = (BLOCK - self.block.len()).min(bytes.len());
                self.block.extend(&bytes[..taken]);
                if self.block.len() == BLOCK {
                    self.header()?;
                }
                Ok(taken)
            }
            At::Content { left, kept } => {
                let taken = least(*left);
                if *kept {
                    self.out.write_all(&bytes[..taken])?;
                }
                *left -= taken as u64;
                if *left == 0 {
                    self.at = At::Header;
                }
                Ok(taken)
            }
            At::Held { left, text, .. } => {
                let taken = least(*left);
                text.extend(&bytes[..taken]);
                self.held.extend(&bytes[..taken]);
                *left -= taken as u64;
                self.held_is_whole()?;
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("git made a tar that cannot be read: {what}"),
    )
}

fn padded(size: u64) -> u64 {
    size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
}

/// Up to the first NUL.
fn field(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn name_in(block: &[u8]) -> Vec<u8> {
    let (name, prefix) = (field(&block[..100]), field(&block[345..500]));
    if prefix.is_empty() {
        name.to_vec()
    } else {
        [prefix, b"/", name].concat()
    }
}

/// Octal digits, or a big number with its first bit set. Source: tar(5).
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let big = field[4..]
            .iter()
            .fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        return Some(big);
    }
    let text = std::str::from_utf8(self::field(field)).ok()?.trim();
    if text.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(text, 8).ok()
}

/// `LENGTH KEY=VALUE\n`, again and again. Source: pax(1).
fn records(mut text: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    while !text.is_empty() {
        let space = text.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
        let record = text.get(space + 1..length.checked_sub(1)?)?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        found.push((&record[..equals], &record[equals + 1..]));
        text = &text[length..];
    }
    Some(found)
}

/// Whether the target of the link at `path` is not in the tree, by its text alone.
fn leads_out(path: &[u8], target: &[u8]) -> bool {
    if target.is_empty() || target[0] == b'/' {
        return true;
    }
    let parts = |text: &[u8]| {
        text.split(|&byte| byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .count()
    };
    let mut depth = parts(path).saturating_sub(1);
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `NAME`, `NAME/`, or `NAME -> TARGET`; a file holds its own name, many times.
    fn tar_of(entries: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, target) in entries {
            let content = name.repeat(300);
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            let mut pax = Vec::new();
            let mut add = |key: &str, value: &[u8]| {
                // The length counts its own digits.
                let rest = 1 + key.len() + 1 + value.len() + 1;
                let len = (1..)
                    .map(|digits| rest + digits)
                    .find(|len| len.to_string().len() + rest == *len)
                    .expect("one fits");
                pax.extend(format!("{len} {key}=").into_bytes());
                pax.extend(value);
                pax.push(b'\n');
            };
            if name.len() > 90 {
                add("path", name);
            }
            if let Some(target) = target.filter(|target| target.len() > 90) {
                add("linkpath", target);
            }
            if !pax.is_empty() {
                let mut long = tar::Header::new_ustar();
                long.set_entry_type(tar::EntryType::XHeader);
                long.set_size(pax.len() as u64);
                long.set_cksum();
                tar.append(&long, &pax[..]).expect("memory");
            }
            let short = &name[..name.len().min(90)];
            header.as_old_mut().name[..short.len()].copy_from_slice(short);
            let body: &[u8] = match target {
                Some(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    let short = &target[..target.len().min(90)];
                    header.as_old_mut().linkname[..short.len()].copy_from_slice(short);
                    b""
                }
                None if name.ends_with(b"/") => {
                    header.set_entry_type(tar::EntryType::Directory);
                    b""
                }
                None => &content,
            };
            header.set_size(body.len() as u64);
            header.set_cksum();
            tar.append(&header, body).expect("memory");
        }
        tar.into_inner().expect("memory")
    }

    fn sifted(tar: &[u8], piece: usize) -> (Vec<u8>, Oddities) {
        let mut sift = Sift::new(Vec::new());
        for piece in tar.chunks(piece) {
            sift.write_all(piece).expect("a tar");
        }
        sift.end()
    }

    #[test]
    fn what_no_machine_takes_is_left_out_and_the_rest_is_as_it_was() {
        let (deep, far) = ("d/".repeat(80) + "link", "../".repeat(81) + "x");
        let near = "../".repeat(80) + "a";
        let all: &[(&[u8], Option<&[u8]>)] = &[
            (b"a", None),
            (b"sub/", None),
            (b"sub/in", Some(b"../a")),
            (b"sub/out", Some(b"../../a")),
            (b"root", Some(b"/etc/passwd")),
            (b"caf\xe9", None),
            (deep.as_bytes(), Some(near.as_bytes())),
            (deep.as_bytes(), Some(far.as_bytes())),
            (b"README", None),
            (b"readme", None),
            (b"z", None),
        ];
        let kept: Vec<_> = all
            .iter()
            .enumerate()
            .filter(|(at, _)| ![3, 4, 5, 7].contains(at))
            .map(|(_, one)| *one)
            .collect();
        let wanted = tar_of(&kept);
        for piece in [1, 7, 511, 512, 513, 1 << 20] {
            let (tar, odd) = sifted(&tar_of(all), piece);
            assert!(tar == wanted, "in pieces of {piece}");
            assert_eq!(odd.links_out.count, 3);
            assert_eq!(
                odd.links_out.first[..2],
                ["`sub/out -> ../../a`", "`root -> /etc/passwd`"]
            );
            assert_eq!(odd.not_utf8.first, ["`caf\\xe9`"]);
            assert_eq!(odd.clashes.first, ["`readme`"]);
        }
        let (tar, odd) = sifted(&wanted[..], 4096);
        assert!(tar == wanted && !odd.leaves_out() && odd.notes().len() == 1);
    }

    #[test]
    fn links_are_judged_by_the_tree_they_are_in() {
        for (path, target, out) in [
            ("a", "b", false),
            ("a", "../b", true),
            ("d/a", "../b", false),
            ("d/a", "../../b", true),
            ("d/a", "x/../../b", false),
            ("d/a", "./.././b", false),
            ("./d//a", "../b", false),
            ("./a", "../b", true),
            ("a", "/b", true),
            ("a", "", true),
            ("a", ".", false),
            ("a", "..", true),
        ] {
            assert_eq!(
                leads_out(path.as_bytes(), target.as_bytes()),
                out,
                "{path} -> {target}"
            );
        }
    }

    #[test]
    fn many_are_counted_and_few_are_named() {
        let links: Vec<(String, &[u8])> = (0..50).map(|n| (format!("l{n}"), &b"/x"[..])).collect();
        let entries: Vec<(&[u8], Option<&[u8]>)> = links
            .iter()
            .map(|(name, to)| (name.as_bytes(), Some(*to)))
            .collect();
        let (_, odd) = sifted(&tar_of(&entries), 1000);
        assert_eq!((odd.links_out.count, odd.links_out.first.len()), (50, NAMED));
        assert!(
            odd.notes()[0].ends_with("`l9 -> /x` and 40 more"),
            "{:?}",
            odd.notes()
        );
    }

    #[test]
    fn what_is_no_tar_is_refused_and_a_long_name_takes_no_memory() {
        let mut long = tar::Header::new_ustar();
        long.set_entry_type(tar::EntryType::XHeader);
        long.set_size(NAME_MAX + 1);
        long.set_cksum();
        for block in [&[b'x'; 512][..], long.as_bytes()] {
            Sift::new(Vec::new())
                .write_all(block)
                .expect_err("no tar of git's");
        }
    }
}
