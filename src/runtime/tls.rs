//! The certificate that the metrics are served with: one from files, which may be replaced while the operator runs, or one
//! of its own, made anew at each start and kept nowhere.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::{self, ServerConfig};

/// The names of the files, as in a Secret of the type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// How often the files are looked at, at most.
const RECHECK: Duration = Duration::from_secs(10);

/// Why there is no certificate to serve with.
#[derive(Debug, Error)]
pub enum TlsError {
    /// None could be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A file cannot be looked at.
    #[error("cannot read {}: {source}", path.display())]
    Look {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be read, or is not what it is to be.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// The certificate and the key do not go together, or are of an unknown kind.
    #[error("cannot use the certificate and its key: {0}")]
    Use(#[from] rustls::Error),
}

/// Serves by TLS.
pub struct Tls(Source);

enum Source {
    Own(TlsAcceptor),
    Files {
        folder: PathBuf,
        loaded: Mutex<Loaded>,
    },
}

struct Loaded {
    acceptor: TlsAcceptor,
    seen: Seen,
    checked: Instant,
}

/// What tells that a file was replaced.
type Seen = [(SystemTime, u64); 2];

impl Tls {
    /// With a certificate of its own, which nobody can check: who reads the metrics is protected by it only from those who
    /// listen.
    ///
    /// # Errors
    /// [`TlsError`], where the system gives no randomness.
    pub fn self_signed() -> Result<Self, TlsError> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Ok(Self(Source::Own(acceptor(
            vec![made.cert.der().clone()],
            key.into(),
        )?)))
    }

    /// With the certificate and key in a folder, and with those that replace them.
    ///
    /// # Errors
    /// [`TlsError`], where they cannot be used.
    pub fn from_folder(folder: PathBuf) -> Result<Self, TlsError> {
        let seen = look(&folder)?;
        let loaded = Loaded {
            acceptor: load(&folder)?,
            seen,
            checked: Instant::now(),
        };
        Ok(Self(Source::Files {
            folder,
            loaded: Mutex::new(loaded),
        }))
    }

    /// What a connection is accepted with that comes now.
    #[must_use]
    pub fn acceptor(&self, now: Instant) -> TlsAcceptor {
        match &self.0 {
            Source::Own(acceptor) => acceptor.clone(),
            Source::Files { folder, loaded } => {
                let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
                if now.duration_since(loaded.checked) >= RECHECK {
                    loaded.checked = now;
                    if let Err(error) = loaded.renew(folder) {
                        tracing::warn!(%error, "the new certificate of the metrics is not used; the old one stays");
                    }
                }
                loaded.acceptor.clone()
            }
        }
    }
}

impl Loaded {
    fn renew(&mut self, folder: &Path) -> Result<(), TlsError> {
        let seen = look(folder)?;
        if seen != self.seen {
            self.acceptor = load(folder)?;
            self.seen = seen;
            tracing::info!("the metrics have a new certificate");
        }
        Ok(())
    }
}

fn look(folder: &Path) -> Result<Seen, TlsError> {
    let file = |name| {
        let path = folder.join(name);
        let seen = std::fs::metadata(&path).and_then(|m| Ok((m.modified()?, m.len())));
        seen.map_err(|source| TlsError::Look { path, source })
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
    // Sessions are not resumed: a scrape now and then is not worth the memory.
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
    fn a_certificate_is_made() {
        let tls = Tls::self_signed().unwrap();
        assert!(same(
            &tls.acceptor(Instant::now()),
            &tls.acceptor(Instant::now() + RECHECK)
        ));
    }

    #[test]
    fn a_certificate_that_is_replaced_is_used_and_a_bad_one_is_not() {
        let folder = Folder::new("replaced");
        folder.write_pair();
        let tls = Tls::from_folder(folder.0.clone()).unwrap();
        let now = Instant::now();
        let first = tls.acceptor(now);
        assert!(
            same(&first, &tls.acceptor(now + RECHECK * 2)),
            "nothing has changed"
        );
        std::thread::sleep(Duration::from_millis(20));
        folder.write_pair();
        assert!(
            same(&first, &tls.acceptor(now + RECHECK * 2)),
            "it has just been looked at"
        );
        let second = tls.acceptor(now + RECHECK * 3);
        assert!(!same(&first, &second));
        folder.write(CERTIFICATE, "nonsense");
        assert!(same(&second, &tls.acceptor(now + RECHECK * 4)));
        std::fs::remove_file(folder.0.join(KEY)).unwrap();
        assert!(same(&second, &tls.acceptor(now + RECHECK * 5)));
        folder.write_pair();
        assert!(!same(&second, &tls.acceptor(now + RECHECK * 6)));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = Folder::new("bad");
        let told = |folder: &Folder| {
            Tls::from_folder(folder.0.clone())
                .err()
                .unwrap()
                .to_string()
        };
        assert!(told(&folder).contains("tls.crt"), "{}", told(&folder));
        folder.write_pair();
        folder.write(KEY, "x");
        assert!(told(&folder).contains("tls.key"), "{}", told(&folder));
        let other = rcgen::generate_simple_self_signed(["b".to_owned()]).unwrap();
        folder.write(KEY, &pem("PRIVATE KEY", &other.signing_key.serialize_der()));
        assert!(
            told(&folder).starts_with("cannot use the certificate and its key"),
            "{}",
            told(&folder)
        );
        folder.write(CERTIFICATE, "");
        assert!(!told(&folder).is_empty());
    }
}
