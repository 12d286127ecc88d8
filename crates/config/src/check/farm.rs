//! `[farm]`, `[environment]`.

use super::*;

impl Check<'_> {
    pub(super) fn farm(&mut self, root: &Table, names: &Names<'_>) -> Farm {
        let fields = root.get("farm").and_then(|entry| {
            let item = Item {
                node: &entry.node,
                path: "farm".to_owned(),
                head: entry.key_at,
            };
            self.read.fields(&item, keys::FARM)
        });
        let mut farm = Farm {
            name: "burrow".to_owned(),
            public_url: None,
            state_dir: self.defaults.state_dir.clone(),
            listen_http: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            listen_https: None,
            listen_ssh: None,
            tls: None,
            names: Vec::new(),
            closed: false,
            secrets: None,
            store: StoreUrl::Embedded,
            // Enough for a source, its build and the log of one more build on most projects.
            disk_floor: 1 << 30,
            keep_logs: Duration::from_secs(90 * 86_400),
            max_log: 32 << 20,
            wait_limit: Duration::from_secs(86_400),
        };
        let Some(fields) = fields else {
            return farm;
        };
        let text = |check: &mut Self, key| {
            let item = fields.get(key)?;
            check.read.text(&item).map(str::to_owned)
        };
        if let Some(name) = text(self, "name") {
            farm.name = name;
        }
        if let Some(dir) = text(self, "state_dir") {
            farm.state_dir = dir.into();
        }
        farm.public_url = fields.get("public_url").and_then(|item| self.public_url(&item));
        if let Some(item) = fields.get("environment") {
            if let Some(name) = self.read.text(&item) {
                self.must_be(&item, "environment", name, &names.environments);
            }
            self.read.notice(item.head, &item.path, NO_EFFECT);
        }
        if let Some(store) = fields.get("store").and_then(|item| self.store(&item)) {
            farm.store = store;
        }
        self.listen(&fields, &mut farm);
        farm.secrets = text(self, "secrets").map(PathBuf::from);
        if let Some(item) = fields.get("names") {
            farm.names = self.names(&item);
        }
        if let Some(item) = fields.get("reading") {
            match self.read.text(&item) {
                Some("open") | None => {}
                Some("closed") => farm.closed = true,
                Some(other) => {
                    let message = format!("`{other}` is no way of reading");
                    let hint = "wanted `open`: anybody reads, or `closed`: holders of a token do";
                    self.read.problem(item.node.at, &item.path, message, hint);
                }
            }
        }
        for (key, into) in [
            ("disk_floor", &mut farm.disk_floor),
            ("max_log", &mut farm.max_log),
        ] {
            if let Some(size) = fields.get(key).and_then(|item| self.read.size(&item)) {
                *into = size;
            }
        }
        if farm.max_log == 0
            && let Some(item) = fields.get("max_log")
        {
            self.read.problem(
                item.node.at,
                &item.path,
                "no log could be kept",
                "wanted such as `32MiB`",
            );
        }
        for (key, into) in [
            ("keep_logs", &mut farm.keep_logs),
            ("wait_limit", &mut farm.wait_limit),
        ] {
            if let Some(duration) = fields.get(key).and_then(|item| self.read.duration(&item)) {
                *into = duration;
            }
        }
        farm
    }

    /// Names of hosts, without scheme and port.
    fn names(&mut self, item: &Item<'_>) -> Vec<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let mut names = Vec::new();
        for name in self.texts(item) {
            if name.is_empty() || !name.chars().all(plain) {
                let message = format!("`{name}` is no name of a host");
                let hint = "wanted such as `farm.example.org`, without `https://` and port";
                self.read.problem(item.node.at, &item.path, message, hint);
            } else {
                names.push(name);
            }
        }
        names
    }

    fn public_url(&mut self, item: &Item<'_>) -> Option<String> {
        const HINT: &str = "wanted such as `https://farm.example.org/`";
        let url = self.read.text(item)?;
        let host = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        match host {
            Some(rest)
                if rest.contains(['?', '#', ' ', '"', '<', '>', '@'])
                    || rest.chars().any(char::is_control) =>
            {
                self.read.refuse(item, "holds more than a host and a path", HINT)
            }
            Some(rest) if !rest.is_empty() && !rest.starts_with(['/', ':']) => {
                let slash = if url.ends_with('/') { "" } else { "/" };
                Some(format!("{url}{slash}"))
            }
            _ => {
                let shown = crate::mask::shown_url(url);
                self.read.refuse(
                    item,
                    format!("`{shown}` is no `http://` or `https://` address"),
                    HINT,
                )
            }
        }
    }

    /// The message never holds what was found: it may be a password.
    fn store(&mut self, item: &Item<'_>) -> Option<StoreUrl> {
        let url = self.read.text(item)?;
        if url == "embedded" {
            Some(StoreUrl::Embedded)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Some(StoreUrl::Postgres(SecretUrl::new(url.to_owned())))
        } else {
            let hint = "wanted `embedded` or an address that begins with `postgres://`";
            self.read.refuse(item, "no such store", hint)
        }
    }

    fn listen(&mut self, fields: &Fields<'_>, farm: &mut Farm) {
        let insecure = fields.get("insecure_http").and_then(|item| self.read.bool(&item));
        if let Some(item) = fields.get("listen")
            && let Some(address) = self.address(&item, "127.0.0.1:8080")
        {
            farm.listen_http = address;
            if !address.ip().is_loopback() && insecure != Some(true) {
                let message = format!("`{address}` can be reached from other machines without TLS");
                let hint = "listen on 127.0.0.1 and give `listen_https`, or say `insecure_http = true`";
                self.read.problem(item.node.at, &item.path, message, hint);
            }
        }
        if let Some(item) = fields.get("listen_https") {
            farm.listen_https = self.address(&item, "0.0.0.0:8443");
            if farm.listen_https == Some(farm.listen_http) && farm.listen_http.port() != 0 {
                self.read.problem(
                    item.node.at,
                    &item.path,
                    "is the same as `listen`",
                    "give each its own port",
                );
            }
        }
        if let Some(item) = fields.get("listen_ssh") {
            farm.listen_ssh = self.address(&item, "0.0.0.0:2222");
        }
        let file = |check: &mut Self, key| {
            let item = fields.get(key)?;
            check.read.text(&item).map(PathBuf::from)
        };
        let (cert, key) = (file(self, "tls_cert"), file(self, "tls_key"));
        match (fields.get("tls_cert"), fields.get("tls_key")) {
            (Some(item), Some(_)) if !fields.has("listen_https") => {
                let hint = "add such as `listen_https = \"0.0.0.0:8443\"`";
                self.read
                    .problem(item.head, &item.path, "nothing listens over TLS", hint);
            }
            (Some(item), None) => {
                let hint = "add `tls_key`, the file with its private key";
                self.read
                    .problem(item.head, &item.path, "a certificate without its key", hint);
            }
            (None, Some(item)) => {
                let hint = "add `tls_cert`, the file with its certificate";
                self.read
                    .problem(item.head, &item.path, "a key without its certificate", hint);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        farm.tls = cert.zip(key).map(|(cert, key)| TlsFiles { cert, key });
    }

    fn address(&mut self, item: &Item<'_>, example: &str) -> Option<SocketAddr> {
        let text = self.read.text(item)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let message = format!("`{text}` is not an address and a port");
                self.read
                    .refuse(item, message, format!("wanted such as `{example}`"))
            }
        }
    }

    pub(super) fn environments(&mut self, root: &Table) {
        let known: Vec<&str> = keys::ENVIRONMENT.iter().map(|key| key.name).collect();
        self.named(root, "environment", plain_name, |check, item| {
            let table = check.read.table(&item)?;
            check.read.refuse_unknown(table, &item.path, &known);
            check.read.notice(item.head, &item.path, NO_EFFECT);
            Some(())
        });
    }
}
