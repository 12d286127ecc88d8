//! TLS: which coordinators are believed, and what is shown to callers.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

pub enum Trust {
    /// The roots that browsers trust, as they were when this program was built.
    PublicRoots,
    /// The certificates in this PEM file and nobody else.
    CaFile(PathBuf),
    /// The one certificate whose SHA-256 this is, whatever name it bears.
    Fingerprint([u8; 32]),
    /// Anybody. Source: what golang/build `cmd/buildlet/reverse.go` does in development.
    Anybody,
}

/// What a buildlet that listens shows, from two PEM texts. No ALPN: HTTP/1.1 is all it speaks.
pub fn server_config(cert: &str, key: &str) -> Result<Arc<ServerConfig>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
    let chain = chain.map_err(|why| format!("META_TLS_CERT: {why}; wanted PEM certificates"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|why| format!("META_TLS_KEY: {why}; wanted a PEM key"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    Ok(Arc::new(config.map_err(|why| {
        format!("META_TLS_CERT and META_TLS_KEY cannot be used together: {why}")
    })?))
}

/// 64 hex digits, with colons or without, as `openssl x509 -fingerprint -sha256` prints them.
pub fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[pair.len() - 1])
        .collect();
    bytes.try_into().ok().filter(|_| digits.len() == 64)
}

impl Trust {
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|why| format!("cannot set TLS up: {why}"))?;
        let verifier = |only| Arc::new(Pinned { only, provider });
        Ok(match self {
            Trust::PublicRoots => {
                let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Trust::CaFile(path) => {
                let bad =
                    |why: String| format!("-ca-file: `{}`: {why}; wanted PEM certificates", path.display());
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(path).map_err(|why| bad(why.to_string()))? {
                    let certificate = certificate.map_err(|why| bad(why.to_string()))?;
                    roots.add(certificate).map_err(|why| bad(why.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(bad("it holds none".to_owned()));
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Trust::Fingerprint(wanted) => {
                let verifier = verifier(Some(*wanted));
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
                    .with_no_client_auth()
            }
            Trust::Anybody => {
                let verifier = verifier(None);
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
                    .with_no_client_auth()
            }
        })
    }
}

/// The coordinator shows another certificate than the one that was named: trying again would change nothing.
#[derive(Debug)]
pub struct WrongCertificate(String);

impl std::fmt::Display for WrongCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongCertificate {}

/// What a handshake that failed says to people; rustls explains to programmers.
pub fn handshake_failed(why: rustls::Error) -> std::io::Error {
    match why {
        // Of `Pinned` below, which has no other way to say it.
        rustls::Error::General(text) => std::io::Error::other(WrongCertificate(text)),
        why => std::io::Error::other(why),
    }
}

/// Takes one certificate, of which the peer has to hold the key; or anybody, and then nothing is checked:
/// the original's development certificate is of a version that cannot be read here.
#[derive(Debug)]
struct Pinned {
    only: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = ::ring::digest::digest(&::ring::digest::SHA256, leaf);
        match self.only {
            Some(wanted) if wanted[..] != *found.as_ref() => {
                let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                Err(rustls::Error::General(format!(
                    "the coordinator's certificate has the fingerprint {}; wanted, by -fingerprint, {}",
                    hex(found.as_ref()),
                    hex(&wanted)
                )))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.only.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.only.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::parse_fingerprint;

    #[test]
    fn fingerprints_are_read_as_openssl_prints_them() {
        let plain = "0f".repeat(32);
        assert_eq!(parse_fingerprint(&plain), Some([15; 32]));
        let colons = vec!["0F"; 32].join(":");
        assert_eq!(parse_fingerprint(&colons), Some([15; 32]));
        for bad in ["", &plain[1..], "xy", &format!("{plain}00")] {
            assert_eq!(parse_fingerprint(bad), None, "{bad}");
        }
    }
}
