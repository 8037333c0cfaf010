//! Whom a connection trusts: the system's authorities, those configured for a host, and the client's own certificate.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};

use crate::error::{Error, Result};

/// What is configured of TLS for one host, by content: files that change make a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Trust {
    /// Further authorities, PEM: each file's name and what it holds.
    pub(super) authorities: Vec<(String, Vec<u8>)>,
    /// Certificates of the client with their keys, PEM; the first is used.
    pub(super) client: Vec<(String, Vec<u8>)>,
    /// Believe any certificate.
    pub(super) skip_verify: bool,
    /// How long a connection may take to come about, in milliseconds; 0: as always.
    pub(super) dial_timeout: u64,
}

impl Trust {
    /// What holds for where this host sends us: its authorities may have signed that too, but the client's certificate is
    /// a credential of this host alone.
    pub(super) fn elsewhere(&self) -> Self {
        Self { client: Vec::new(), ..self.clone() }
    }

    /// The configuration of rustls.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(format!("set up TLS: {error}")))?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Credulous(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let mut config = match self.client.first() {
            None => builder.with_no_client_auth(),
            Some((file, pem)) => {
                let wrong =
                    |why: String| Error::invalid(format!("the client certificate {file} cannot be used: {why}"));
                let chain = certificates(pem).map_err(wrong)?;
                let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| wrong(error.to_string()))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| wrong(error.to_string()))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = system().clone();
        for (file, pem) in &self.authorities {
            let wrong = |why: String| Error::invalid(format!("the CA certificates {file} cannot be used: {why}"));
            for certificate in certificates(pem).map_err(wrong)? {
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
        }
        Ok(roots)
    }
}

fn certificates(pem: &[u8]) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("it holds no certificate in PEM".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The system's authorities, from where distributions keep them or SSL_CERT_FILE and SSL_CERT_DIR say; read once.
fn system() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("the system's CA certificates: {error}");
        }
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

/// Whether the peer does not speak TLS at all.
pub(super) fn is_no_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    matches!(inner, Some(TlsError::InvalidMessage(_))) || error.kind() == io::ErrorKind::UnexpectedEof
}

/// Whether the peer's certificate, or ours, is the reason.
pub(super) fn is_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    matches!(
        inner,
        Some(TlsError::InvalidCertificate(_) | TlsError::NoCertificatesPresented | TlsError::AlertReceived(_))
    )
}

/// Believes any certificate: who asks for `skip_verify` gets it.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
