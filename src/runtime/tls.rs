//! The TLS certificate of the metrics server. It is either loaded from files, which are reloaded when they change, or
//! self-signed and generated at each start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::runtime::lock;

/// The file names, which are the keys of a Secret of type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The minimum interval between two checks of the files for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Why no certificate is available.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The self-signed certificate could not be generated.
    #[error("cannot generate a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The metadata of a file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be read or parsed.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// The certificate and the key do not match, or their type is not supported.
    #[error("invalid certificate or key: {0}")]
    Invalid(#[from] rustls::Error),
}

/// The certificate of the metrics server.
pub struct Tls(Source);

enum Source {
    SelfSigned(TlsAcceptor),
    Files {
        folder: PathBuf,
        loaded: Mutex<Loaded>,
    },
}

struct Loaded {
    acceptor: TlsAcceptor,
    fingerprint: Fingerprint,
    checked: Instant,
}

/// The modification time and size of both files. A change means that a file was replaced.
type Fingerprint = [(SystemTime, u64); 2];

impl Tls {
    /// Generates a self-signed certificate. Clients cannot verify it, so it protects against eavesdropping only.
    ///
    /// # Errors
    /// Fails if the system provides no randomness.
    pub fn self_signed() -> Result<Self, TlsError> {
        let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(generated.signing_key.serialize_der());
        Ok(Self(Source::SelfSigned(acceptor(
            vec![generated.cert.der().clone()],
            key.into(),
        )?)))
    }

    /// Loads the certificate and key from a folder. They are reloaded when they change.
    ///
    /// # Errors
    /// Fails if the files cannot be read or do not contain a valid pair.
    pub fn from_folder(folder: PathBuf) -> Result<Self, TlsError> {
        let fingerprint = fingerprint(&folder)?;
        let loaded = Loaded {
            acceptor: load(&folder)?,
            fingerprint,
            checked: Instant::now(),
        };
        Ok(Self(Source::Files {
            folder,
            loaded: Mutex::new(loaded),
        }))
    }

    /// Returns the acceptor for a new connection, after a reload if one is due.
    #[must_use]
    pub(crate) fn acceptor(&self, now: Instant) -> TlsAcceptor {
        match &self.0 {
            Source::SelfSigned(acceptor) => acceptor.clone(),
            Source::Files { folder, loaded } => {
                let mut loaded = lock(loaded);
                if now.duration_since(loaded.checked) >= RELOAD_INTERVAL {
                    loaded.checked = now;
                    if let Err(error) = loaded.reload(folder) {
                        tracing::warn!(%error, "cannot reload the metrics certificate, keeping the previous one");
                    }
                }
                loaded.acceptor.clone()
            }
        }
    }
}

impl Loaded {
    fn reload(&mut self, folder: &Path) -> Result<(), TlsError> {
        let fingerprint = fingerprint(folder)?;
        if fingerprint != self.fingerprint {
            self.acceptor = load(folder)?;
            self.fingerprint = fingerprint;
            tracing::info!("reloaded the metrics certificate");
        }
        Ok(())
    }
}

fn fingerprint(folder: &Path) -> Result<Fingerprint, TlsError> {
    let file = |name| {
        let path = folder.join(name);
        let metadata = std::fs::metadata(&path).and_then(|m| Ok((m.modified()?, m.len())));
        metadata.map_err(|source| TlsError::Metadata { path, source })
    };
    Ok([file(CERTIFICATE)?, file(KEY)?])
}

fn load(folder: &Path) -> Result<TlsAcceptor, TlsError> {
    let unreadable = |name| {
        move |source| TlsError::Read {
            path: folder.join(name),
            source,
        }
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(folder.join(CERTIFICATE)).and_then(Iterator::collect);
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY)).map_err(unreadable(KEY))?;
    acceptor(chain.map_err(unreadable(CERTIFICATE))?, key)
}

fn acceptor(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Session resumption is disabled: scrapes are too rare to be worth the memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tls-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.join(name), text).unwrap();
        }

        fn write_pair(&self) {
            let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
            self.write(CERTIFICATE, &pem("CERTIFICATE", made.cert.der()));
            self.write(KEY, &pem("PRIVATE KEY", &made.signing_key.serialize_der()));
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn pem(label: &str, der: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in der.chunks(3) {
            let bits = chunk
                .iter()
                .fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            let digit = |place: usize| char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]);
            text.extend((0..4).map(|place| {
                if place <= chunk.len() {
                    digit(place)
                } else {
                    '='
                }
            }));
        }
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    fn same(a: &TlsAcceptor, b: &TlsAcceptor) -> bool {
        Arc::ptr_eq(a.config(), b.config())
    }

    #[test]
    fn self_signed_certificate_does_not_change() {
        let tls = Tls::self_signed().unwrap();
        assert!(same(
            &tls.acceptor(Instant::now()),
            &tls.acceptor(Instant::now() + RELOAD_INTERVAL)
        ));
    }

    #[test]
    fn replaced_certificate_is_reloaded_and_an_invalid_one_is_ignored() {
        let folder = Folder::new("replaced");
        folder.write_pair();
        let tls = Tls::from_folder(folder.0.clone()).unwrap();
        let now = Instant::now();
        let first = tls.acceptor(now);
        assert!(
            same(&first, &tls.acceptor(now + RELOAD_INTERVAL * 2)),
            "the files have not changed"
        );
        std::thread::sleep(Duration::from_millis(20));
        folder.write_pair();
        assert!(
            same(&first, &tls.acceptor(now + RELOAD_INTERVAL * 2)),
            "the files were checked less than RELOAD_INTERVAL ago"
        );
        let second = tls.acceptor(now + RELOAD_INTERVAL * 3);
        assert!(!same(&first, &second));
        folder.write(CERTIFICATE, "nonsense");
        assert!(same(&second, &tls.acceptor(now + RELOAD_INTERVAL * 4)));
        std::fs::remove_file(folder.0.join(KEY)).unwrap();
        assert!(same(&second, &tls.acceptor(now + RELOAD_INTERVAL * 5)));
        folder.write_pair();
        assert!(!same(&second, &tls.acceptor(now + RELOAD_INTERVAL * 6)));
    }

    #[test]
    fn errors_name_the_invalid_file() {
        let folder = Folder::new("bad");
        let error = |folder: &Folder| {
            Tls::from_folder(folder.0.clone())
                .err()
                .unwrap()
                .to_string()
        };
        assert!(error(&folder).contains("tls.crt"), "{}", error(&folder));
        folder.write_pair();
        folder.write(KEY, "x");
        assert!(error(&folder).contains("tls.key"), "{}", error(&folder));
        let other = rcgen::generate_simple_self_signed(["b".to_owned()]).unwrap();
        folder.write(KEY, &pem("PRIVATE KEY", &other.signing_key.serialize_der()));
        assert!(
            error(&folder).starts_with("invalid certificate or key"),
            "{}",
            error(&folder)
        );
        folder.write(CERTIFICATE, "");
        assert!(!error(&folder).is_empty());
    }
}
