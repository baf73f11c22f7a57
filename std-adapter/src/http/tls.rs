//! Builds the TLS side of the client: which authorities are trusted, which versions are spoken.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::config::Endpoint;
use super::error::SetupError;

/// A ready TLS client for one host.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

/// TLS 1.2 and 1.3 with the system's authorities and those of `ca_file`; only HTTP/1.1 is offered.
///
/// Reads files: some milliseconds, done once for a client.
pub(super) fn build(endpoint: &Endpoint, ca_file: Option<&Path>) -> Result<Tls, SetupError> {
    let name = ServerName::try_from(endpoint.bare_host().to_owned())
        .map_err(|_| SetupError::Host { why: "it is no name that a certificate could be for" })?;
    let roots = roots(ca_file)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Tls { why: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, SetupError> {
    let mut store = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    if let Some(error) = native.errors.first() {
        tracing::warn!(faults = native.errors.len(), first = %error, "some of the system's certificates can't be read");
    }
    store.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        let fault = |why: String| SetupError::CaFile { path: path.to_owned(), why };
        let mut found = 0_usize;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fault(e.to_string()))? {
            let certificate = certificate.map_err(|e| fault(e.to_string()))?;
            found += 1;
            store.add(certificate).map_err(|e| fault(format!("certificate number {found}: {e}")))?;
        }
        if found == 0 {
            return Err(fault("it holds no certificate in PEM form".to_owned()));
        }
    }
    if store.is_empty() {
        let why = match native.errors.first() {
            Some(error) => error.to_string(),
            None => "the system's store is empty".to_owned(),
        };
        return Err(SetupError::NoRoots { why });
    }
    Ok(store)
}
