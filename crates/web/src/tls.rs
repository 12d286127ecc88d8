use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why there is no TLS. Each says which file to look at.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read the certificate `{}`; wanted a PEM file with the whole chain, leaf first", .path.display())]
    Certificate {
        path: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("the certificate `{}` holds none; wanted a PEM file with the whole chain, leaf first", .path.display())]
    NoCertificate { path: PathBuf },
    #[error("cannot read the key `{}`; wanted a PEM file with one private key", .path.display())]
    Key {
        path: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("the certificate `{}` and the key `{}` cannot be used together", .cert.display(), .key.display())]
    Refused {
        cert: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("cannot keep a certificate in `{}`", .path.display())]
    Keep { path: PathBuf, source: io::Error },
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// TLS 1.2 and 1.3 with the certificate chain and key of two PEM files; offers `h2` and `http/1.1`.
///
/// Blocking: reads files.
pub fn tls_from_files(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let unread = |source| TlsError::Certificate {
        path: cert.to_owned(),
        source,
    };
    let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(cert)
        .map_err(unread)?
        .collect::<Result<_, _>>()
        .map_err(unread)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            path: cert.to_owned(),
        });
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Key {
        path: key.to_owned(),
        source,
    })?;
    let refused = |source| TlsError::Refused {
        cert: cert.to_owned(),
        key: key.to_owned(),
        source,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(refused)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificate kept in `folder` as `cert.pem` and `key.pem`; made, self-signed for `names`, if
/// either is missing. It stays the same over restarts, so that peers can pin it.
///
/// Blocking: reads and writes files.
pub fn tls_of_our_own(folder: &Path, names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if !(cert.exists() && key.exists()) {
        let pair = rcgen::KeyPair::generate()?;
        let mut names = names.to_vec();
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        let made = rcgen::CertificateParams::new(names)?.self_signed(&pair)?;
        fs::create_dir_all(folder).map_err(|source| TlsError::Keep {
            path: folder.to_owned(),
            source,
        })?;
        // The key first: a certificate without it is made anew, a key without it likewise.
        keep(&key, pair.serialize_pem().as_bytes(), 0o600)?;
        keep(&cert, made.pem().as_bytes(), 0o644)?;
    }
    tls_from_files(&cert, &key)
}

/// SHA-256 of the first certificate in a PEM file, in hex: what `-fingerprint` of a buildlet takes. `None`: there is no such file.
///
/// Blocking: reads a file.
pub fn fingerprint(cert: &Path) -> Result<Option<String>, TlsError> {
    if !cert.exists() {
        return Ok(None);
    }
    let leaf = CertificateDer::from_pem_file(cert).map_err(|source| TlsError::Certificate {
        path: cert.to_owned(),
        source,
    })?;
    let digest = ::ring::digest::digest(&::ring::digest::SHA256, &leaf);
    Ok(Some(
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
    ))
}

/// Whole or not at all.
fn keep(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let temporary = path.with_extension("pem.new");
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| TlsError::Keep {
        path: path.to_owned(),
        source,
    })
}
