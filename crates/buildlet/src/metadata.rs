//! What is told to a machine that listens: its password and certificate, by the environment or by the cloud that it
//! is in.
//!
//! Source: golang/build `cmd/buildlet/buildlet.go`, `buildlet/kube.go` (2018), `internal/cloud/aws.go` (2023).

use std::fs;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use http1::BodyDecoder;
use serde_json::Value;

use crate::dial::{answer_head, parse_address, tcp};
use crate::form;
use crate::stream::{Buffered, Stream};

const SERVER: &str = "169.254.169.254";
/// For one answer.
const LIMIT: Duration = Duration::from_secs(5);
/// A value longer than this is none of ours.
const VALUE_MAX: u64 = 64 * 1024;

/// The cloud a machine is in, with the address of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cloud {
    Gce(String),
    Ec2(String),
}

/// Where values are looked for: the environment first. By default nowhere else.
#[derive(Default)]
pub struct Metadata {
    cloud: Option<Cloud>,
    /// EC2's values come all at once.
    user_data: Value,
}

impl Metadata {
    /// Finds out where this machine is. In EC2 its user data is read; that there is none is no error.
    pub fn find() -> Result<Metadata, String> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let maker = |file: &str| fs::read_to_string(format!("/sys/class/dmi/id/{file}")).unwrap_or_default();
        let cloud = cloud(env, maker);
        let user_data = match &cloud {
            Some(Cloud::Ec2(server)) => ec2_user_data(server)?,
            Some(Cloud::Gce(_)) | None => Value::Null,
        };
        Ok(Metadata { cloud, user_data })
    }

    /// Whether the original would be on a cloud's machine of its own here, and listen to others by default.
    pub fn is_in_a_cloud(&self) -> bool {
        self.cloud.is_some()
    }

    /// A value that is not empty, with the white space around it removed.
    pub fn get(&self, key: &str) -> Result<Option<String>, String> {
        let value = match (in_environment(key)?, &self.cloud) {
            (Some(value), _) => Some(value),
            (None, None) => None,
            (None, Some(Cloud::Gce(server))) => gce_attribute(server, key)?,
            (None, Some(Cloud::Ec2(_))) => {
                // Source: golang/build `internal/cloud/aws.go`.
                let key = if key == "password" {
                    "tls_password".to_owned()
                } else {
                    key.replace('-', "_")
                };
                self.user_data[key].as_str().map(str::to_owned)
            }
        };
        Ok(value
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty()))
    }
}

fn cloud(env: impl Fn(&str) -> Option<String>, maker: impl Fn(&str) -> String) -> Option<Cloud> {
    let old_kubernetes = form::is_true(env("IN_KUBERNETES").as_deref());
    if old_kubernetes || env("KUBERNETES_SERVICE_HOST").is_some() {
        return None;
    }
    if let Some(host) = env("GCE_METADATA_HOST") {
        return Some(Cloud::Gce(host));
    }
    if let Some(url) = env("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
        let server = url.trim_start_matches("http://").trim_end_matches('/');
        return Some(Cloud::Ec2(server.to_owned()));
    }
    if maker("product_name").trim() == "Google Compute Engine" {
        return Some(Cloud::Gce(SERVER.to_owned()));
    }
    (maker("sys_vendor").trim() == "Amazon EC2").then(|| Cloud::Ec2(SERVER.to_owned()))
}

/// `META_` and the key, in its own or in upper case, or with `GCE` before it. A value `@FILE` is that file's
/// content.
fn in_environment(key: &str) -> Result<Option<String>, String> {
    let name = key.replace('-', "_");
    let upper = name.to_uppercase();
    let names = ["META_", "GCEMETA_"].map(|prefix| [format!("{prefix}{name}"), format!("{prefix}{upper}")]);
    let value = names
        .as_flattened()
        .iter()
        .find_map(|name| std::env::var(name).ok());
    match value.as_deref().and_then(|value| value.strip_prefix('@')) {
        None => Ok(value),
        Some(path) => {
            let read = fs::read_to_string(path);
            read.map(Some)
                .map_err(|why| format!("cannot read {key} from `{path}`: {why}"))
        }
    }
}

/// One that is not set is none; any other answer than it or a value is an error.
fn gce_attribute(server: &str, key: &str) -> Result<Option<String>, String> {
    let path = format!("/computeMetadata/v1/instance/attributes/{key}");
    match ask(server, "GET", &path, "Metadata-Flavor: Google\r\n") {
        Ok((200, text)) => Ok(Some(text)),
        Ok((404, _)) => Ok(None),
        Ok((status, _)) => Err(format!(
            "GCE's metadata server `{server}` answered {status} for `{key}`"
        )),
        Err(why) => Err(format!(
            "cannot ask GCE's metadata server `{server}` for `{key}`: {why}"
        )),
    }
}

fn ec2_user_data(server: &str) -> Result<Value, String> {
    // The second version of the service wants a token first; the first knows of none.
    let asked = ask(
        server,
        "PUT",
        "/latest/api/token",
        "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n",
    );
    let token = match asked {
        Ok((200, token)) if token.bytes().all(|b| b.is_ascii_graphic()) => {
            format!("X-aws-ec2-metadata-token: {token}\r\n")
        }
        _ => String::new(),
    };
    match ask(server, "GET", "/latest/user-data", &token) {
        Ok((200, text)) => Ok(serde_json::from_str(&text).unwrap_or(Value::Null)),
        Ok((404, _)) => Ok(Value::Null),
        Ok((status, _)) => Err(format!(
            "EC2's metadata server `{server}` answered {status} for user data"
        )),
        Err(why) => Err(format!(
            "cannot ask EC2's metadata server `{server}` for user data: {why}"
        )),
    }
}

fn ask(server: &str, method: &str, path: &str, headers: &str) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + LIMIT;
    let (host, port) = parse_address(server)
        .or_else(|| parse_address(&format!("{server}:80")))
        .ok_or_else(|| io::Error::other("it is no address"))?;
    let mut connection = Buffered::new(Stream::Plain(tcp(&host, port, deadline)?));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: burrow-buildlet\r\nContent-Length: 0\r\n\
         Connection: close\r\n{headers}\r\n"
    );
    connection.send(request.as_bytes())?;
    let head = answer_head(&mut connection, deadline)?;
    let decoder = BodyDecoder::of_answer(&head).map_err(io::Error::other)?;
    connection.stream.set_read_timeout(Some(LIMIT))?;
    let mut text = String::new();
    let mut body = connection.body(decoder, false);
    (&mut body).take(VALUE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > VALUE_MAX {
        return Err(io::Error::other(format!(
            "the answer is longer than {VALUE_MAX} bytes"
        )));
    }
    Ok((head.status, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_are_told_by_their_maker_and_by_who_says_so() {
        let found = |env: &[(&str, &str)], vendor: &str, product: &str| {
            let env = |name: &str| {
                let pair = env.iter().find(|(key, _)| *key == name);
                pair.map(|(_, value)| (*value).to_owned())
            };
            let maker = |file: &str| match file {
                "sys_vendor" => format!("{vendor}\n"),
                "product_name" => format!("{product}\n"),
                _ => String::new(),
            };
            cloud(env, maker)
        };
        let gce = |host: &str| Some(Cloud::Gce(host.to_owned()));
        let ec2 = |host: &str| Some(Cloud::Ec2(host.to_owned()));
        assert_eq!(found(&[], "Google", "Google Compute Engine"), gce(SERVER));
        assert_eq!(found(&[], "Amazon EC2", "m5.large"), ec2(SERVER));
        assert_eq!(found(&[], "QEMU", "Standard PC"), None);
        assert_eq!(found(&[("GCE_METADATA_HOST", "h:1")], "", ""), gce("h:1"));
        assert_eq!(
            found(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://h:1/")], "", ""),
            ec2("h:1")
        );
        // In Kubernetes the machine's metadata are not the pod's.
        for name in [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("IN_KUBERNETES", "1")] {
            assert_eq!(found(&[name], "Google", "Google Compute Engine"), None);
        }
        assert_eq!(found(&[("IN_KUBERNETES", "0")], "Amazon EC2", ""), ec2(SERVER));
    }
}
