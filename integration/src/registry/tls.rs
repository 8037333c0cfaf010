//! A private authority, and what it signs.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// An authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a registry with TLS needs.
#[derive(Clone)]
pub struct Tls(pub(super) Arc<ServerConfig>);

impl Ca {
    /// A new one, that nobody knows.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("make a CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("make a key");
        let pem = params.self_signed(&key).expect("sign a CA").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A client's certificate and its key.
    #[must_use]
    pub fn client(&self) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).expect("make a certificate");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("make a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("sign a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// For a server at this address; it may want to see a certificate of the client's.
    #[must_use]
    pub fn server(&self, address: IpAddr, wants_client: bool) -> Tls {
        let names = vec![address.to_string(), "localhost".to_owned()];
        let params = CertificateParams::new(names).expect("make a certificate");
        let key = KeyPair::generate().expect("make a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("sign a certificate");
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("set TLS up");
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("read the CA")).expect("take the CA");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("set client certificates up"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("read the key");
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).expect("take the certificate");
        Tls(Arc::new(config))
    }
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}
