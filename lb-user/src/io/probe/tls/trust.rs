//! The configurations of TLS that checks use, each made once and again after a while.
//!
//! Owns whom a check trusts. Files are read beside the loop, so that no other check waits for them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{sync::watch, task};

use crate::pure::config::model::check::Verify;

/// Says what to do when there is none.
pub(super) async fn config(verify: &Verify, alpn: &[String]) -> Result<Arc<ClientConfig>, String> {
    let mut made = cached(verify, alpn, Instant::now());
    match made.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(made)) => made.clone(),
        _ => Err("the check's authorities could not be read".to_owned()),
    }
}

type Made = Option<Result<Arc<ClientConfig>, String>>;

struct Cached {
    verify: Verify,
    alpn: Vec<String>,
    begun: Option<Instant>,
    made: Arc<watch::Sender<Made>>,
}

static CACHE: Mutex<Vec<Cached>> = Mutex::new(Vec::new());

/// What is known, and soon what is true: whoever comes after the lifetime has it made again, and takes the last one
/// meanwhile.
fn cached(verify: &Verify, alpn: &[String], now: Instant) -> watch::Receiver<Made> {
    // Nothing below leaves the list half changed.
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let known = cache.iter().position(|entry| entry.verify == *verify && entry.alpn == alpn);
    let at = known.unwrap_or_else(|| {
        if cache.len() >= CACHED_MAX {
            cache.remove(0);
        }
        let made = Arc::new(watch::Sender::new(None));
        cache.push(Cached { verify: verify.clone(), alpn: alpn.to_vec(), begun: None, made });
        cache.len() - 1
    });
    let entry = &mut cache[at];
    if entry.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= LIFETIME) {
        entry.begun = Some(now);
        let (verify, alpn, made) = (verify.clone(), alpn.to_vec(), Arc::clone(&entry.made));
        // Goes on when the check that asked is out of time: the next one finds it done.
        task::spawn_blocking(move || {
            made.send_replace(Some(make(&verify, &alpn).map_err(|error| error.to_string())))
        });
    }
    entry.made.subscribe()
}

fn make(verify: &Verify, alpn: &[String]) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        Verify::None => Arc::new(Anyone(Arc::clone(&provider))),
        Verify::System => by(system_roots()?, &provider)?,
        Verify::File(path) => by(file_roots(path)?, &provider)?,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.clone().into_bytes()).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn by(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build()?)
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TrustError::NoSystemRoots);
    }
    Ok(roots)
}

fn file_roots(path: &Path) -> Result<RootCertStore, TrustError> {
    let unreadable = |source| TrustError::Read { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(unreadable)?;
    // A pipe has no end, and whoever reads it would wait.
    if !size.is_file() || size.len() > FILE_MAX {
        return Err(TrustError::NoFile { path: path.to_owned() });
    }
    let text = fs::read(path).map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let added = certificate.is_ok_and(|certificate| roots.add(certificate).is_ok());
        if !added {
            return Err(TrustError::Malformed { path: path.to_owned() });
        }
    }
    if roots.is_empty() {
        return Err(TrustError::Empty { path: path.to_owned() });
    }
    Ok(roots)
}

#[derive(Debug, thiserror::Error)]
enum TrustError {
    #[error("cannot read {}: {source}; put the authority's certificates there", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no file of certificates: name one that is shorter than 4 MiB", path.display())]
    NoFile { path: PathBuf },
    #[error("{} holds something that is no certificate: write it anew, in PEM form", path.display())]
    Malformed { path: PathBuf },
    #[error("{} holds no certificate: put the authority's there, in PEM form", path.display())]
    Empty { path: PathBuf },
    #[error("this machine knows no authorities: install ca-certificates, or name a file of them")]
    NoSystemRoots,
    #[error(transparent)]
    Verifier(#[from] VerifierBuilderError),
    #[error(transparent)]
    Tls(#[from] Error),
}

/// Accepts whatever certificate there is: `verify = "none"` asks whether TLS is spoken, not by whom.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// After it, authorities are read again: a file that was replaced counts then.
const LIFETIME: Duration = Duration::from_secs(30);
/// The oldest goes for one too many, and is made again when it is asked for.
const CACHED_MAX: usize = 256;
const FILE_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tokio::runtime;

    use super::*;

    #[test]
    fn a_file_that_was_replaced_counts_after_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authority.pem");
        let verify = Verify::File(path.clone());
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let begun = Instant::now();
            assert!(config(&verify, &[]).await.unwrap_err().starts_with("cannot read"));

            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::default().self_signed(&key).unwrap();
            fs::write(&path, certificate.pem()).unwrap();
            assert!(config(&verify, &[]).await.is_err());

            let mut made = cached(&verify, &[], begun + 2 * LIFETIME);
            assert!(made.borrow_and_update().is_some(), "the last one serves meanwhile");
            if matches!(&*made.borrow(), Some(Err(_))) {
                made.changed().await.unwrap();
            }
            assert!(matches!(&*made.borrow(), Some(Ok(_))));
        });
    }
}
