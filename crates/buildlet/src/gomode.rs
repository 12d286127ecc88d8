//! Go's file modes, which travel as text in listings and as numbers in uploads.
//!
//! Source: Go's `io/fs`, `FileMode`.

use rustix::fs::{FileType, RawMode};

/// Folder, link, device, fifo, socket, character device, irregular: what no upload may ask for.
const NO_FILE: u64 = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;

/// The permissions of a decimal mode as `/write` takes it; `None` for what is no regular file's.
pub fn parse_permissions(text: &str) -> Option<u32> {
    let mode: u64 = text.parse().ok()?;
    (mode < 1 << 32 && mode & NO_FILE == 0).then_some((mode & 0o777) as u32)
}

/// `-rw-r--r--`, `drwxr-xr-x`, `Lrwxrwxrwx`, `Dcrw-rw-rw-`, `dtrwxrwxrwx`: letters for the type bits
/// that are set, else `-`, then the permissions, over which setuid and sticky are not written.
pub fn text(mode: RawMode) -> String {
    let kind = FileType::from_raw_mode(mode);
    let mut out = String::new();
    for (letter, set) in [
        ('d', kind == FileType::Directory),
        ('L', kind == FileType::Symlink),
        (
            'D',
            matches!(kind, FileType::BlockDevice | FileType::CharacterDevice),
        ),
        ('p', kind == FileType::Fifo),
        ('S', kind == FileType::Socket),
        ('u', mode & 0o4000 != 0),
        ('g', mode & 0o2000 != 0),
        ('c', kind == FileType::CharacterDevice),
        ('t', mode & 0o1000 != 0),
    ] {
        if set {
            out.push(letter);
        }
    }
    if out.is_empty() {
        out.push('-');
    }
    for (at, letter) in "rwxrwxrwx".chars().enumerate() {
        out.push(if mode >> (8 - at) & 1 == 1 { letter } else { '-' });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_go_does() {
        for (mode, wanted) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "Lrwxrwxrwx"),
            (0o020_666, "Dcrw-rw-rw-"),
            (0o060_660, "Drw-rw----"),
            (0o041_777, "dtrwxrwxrwx"),
            (0o104_755, "urwxr-xr-x"),
            (0o010_600, "prw-------"),
        ] {
            assert_eq!(text(mode), wanted);
        }
    }

    #[test]
    fn only_a_regular_files_mode_is_taken() {
        assert_eq!(parse_permissions("493"), Some(0o755));
        // Setuid (bit 23) is no other type of file, and is not given.
        assert_eq!(parse_permissions(&(1u64 << 23 | 0o755).to_string()), Some(0o755));
        for bad in ["", "0755x", "-1", "4294967296"] {
            assert_eq!(parse_permissions(bad), None, "{bad}");
        }
        for bit in [31, 27, 26, 25, 24, 21, 19] {
            assert_eq!(
                parse_permissions(&(1u64 << bit | 0o644).to_string()),
                None,
                "{bit}"
            );
        }
    }
}
