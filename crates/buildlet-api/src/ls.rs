//! The lines of `/ls`.

/// What `/ls` is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    pub recursive: bool,
    /// With the SHA-1 of each regular file.
    pub digest: bool,
    /// Directories, by their path from the listed one, that are left out whole.
    pub skip: Vec<String>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Go's mode string, such as `-rw-r--r--` or `Lrwxrwxrwx`.
    pub mode: String,
    /// From the listed directory, with slashes; a directory's ends in one.
    pub path: String,
    /// Of a regular file alone.
    pub file: Option<FileInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    pub size: u64,
    /// RFC 3339 in UTC, whole seconds.
    pub modified: String,
    /// Forty lower-case hex digits, if a digest was asked for.
    pub sha1: Option<String>,
}

/// Parses one line without its newline: `MODE \t PATH [\t SIZE \t MTIME [\t SHA1]]`.
pub(crate) fn parse_line(line: &str) -> Option<DirEntry> {
    let mut fields = line.split('\t');
    let mode = fields.next().filter(|mode| !mode.is_empty())?.to_owned();
    let path = fields.next()?.to_owned();
    let file = match fields.next() {
        None => None,
        Some(size) => Some(FileInfo {
            size: size.parse().ok()?,
            modified: fields.next()?.to_owned(),
            sha1: fields.next().map(str::to_owned),
        }),
    };
    fields.next().is_none().then_some(DirEntry { mode, path, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_files_directories_and_others() {
        let sha1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
        let line = format!("-rw-r--r--\tsrc/a.go\t0\t2018-06-13T21:27:35Z\t{sha1}");
        let file = parse_line(&line).unwrap().file.unwrap();
        assert_eq!((file.size, file.sha1.as_deref()), (0, Some(sha1)));
        assert_eq!(parse_line("drwxr-xr-x\tsrc/").unwrap().path, "src/");
        for bad in ["", "x", "\tx", "-\ta\tmany\tt", "-\ta\t1", "-\ta\t1\tt\ts\tmore"] {
            assert_eq!(parse_line(bad), None, "{bad:?}");
        }
    }
}
