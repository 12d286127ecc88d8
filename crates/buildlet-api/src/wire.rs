//! Paths, header names, and the form encoding of Go's client.

pub const STATUS: &str = "/status";
pub const WORK_DIR: &str = "/workdir";
pub const EXEC: &str = "/exec";
pub const WRITE_TGZ: &str = "/writetgz";
pub const WRITE: &str = "/write";
pub const TGZ: &str = "/tgz";
pub const LS: &str = "/ls";
pub const REMOVE_ALL: &str = "/removeall";
pub const HALT: &str = "/halt";
/// Our own: commands that go on when the connection ends. `POST ?id=`, `GET` lists; below it,
/// `/ID` with `GET ?offset=` and `DELETE`.
pub const BURROW_EXEC: &str = "/burrow/exec";

/// Our own: `POST` ends a buildlet that does nothing, for its stage0 to run the one that is published. 409: it is at work.
pub const BURROW_UPDATE: &str = "/burrow/update";

/// Trailer of `/exec`: `ok`, or why the command failed.
pub const PROCESS_STATE: &str = "process-state";
/// Trailer in place of [`PROCESS_STATE`]: why the machine failed the command.
pub const BURROW_ERROR: &str = "burrow-error";
/// Header of `GET /burrow/exec/ID`: the stream offset of the body's first byte.
pub const BURROW_OFFSET: &str = "burrow-offset";
/// Trailer of `GET /burrow/exec/ID`: JSON with `exit`, `signal`, `wall_ms`, `strays`, `bytes`.
pub const BURROW_EXEC_TRAILER: &str = "burrow-exec";

/// Header of a request that a coordinator is to pass on to the machine of this name.
pub const BUILDLET_PROXY: &str = "x-buildlet-proxy";

/// Registration of a reverse buildlet.
pub const REVERSE: &str = "/reverse";
/// Where a reverse buildlet brings the connections it was asked for.
pub const REVDIAL: &str = "/revdial";
pub const BUILDER_HOSTNAME: &str = "x-go-builder-hostname";
pub const BUILDER_KEY: &str = "x-go-builder-key";
pub const BUILDER_VERSION: &str = "x-go-builder-version";
pub const HOST_TYPE: &str = "x-go-host-type";
pub const REVDIAL_VERSION: &str = "x-revdial-version";
/// Stable for one start of one of our buildlets.
pub const BURROW_INSTANCE: &str = "x-burrow-instance";
/// It sends a keep-alive at least every 30 s; without one for 100 s it is dead.
pub const BURROW_KEEP_ALIVE: &str = "x-burrow-keep-alive";
/// The serial of the manifest that its stage0 runs it from.
pub const BURROW_RELEASE: &str = "x-burrow-release";

/// Encodes pairs as `application/x-www-form-urlencoded`, in the order given: all but letters,
/// digits and `-_.~` as `%XX`, a space as `+`.
///
/// Source: Go's `net/url`, `Values.Encode`.
pub fn form<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (key, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        escape(&mut out, key, '+'.into());
        out.push('=');
        escape(&mut out, value, '+'.into());
    }
    out
}

/// Encodes one path segment: as [`form`], but a space is `%20`.
pub fn segment(text: &str) -> String {
    let mut out = String::new();
    escape(&mut out, text, None);
    out
}

fn escape(out: &mut String, text: &str, space: Option<char>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match (byte, space) {
            (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~', _) => out.push(byte.into()),
            (b' ', Some(space)) => out.push(space),
            _ => {
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)].into());
                out.push(HEX[usize::from(byte & 15)].into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_look_as_go_writes_them() {
        let pairs = [("env", "A=b c"), ("env", "ü&~"), ("dir", "")];
        assert_eq!(form(pairs), "env=A%3Db+c&env=%C3%BC%26~&dir=");
        assert_eq!(segment("17.2.0 /x"), "17.2.0%20%2Fx");
    }
}
