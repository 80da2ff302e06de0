//! TLS for two nodes that know each other's key already.
//!
//! Both ends present an Ed25519 raw public key (RFC 7250) and accept exactly the one that the other's sealed descriptor names. No
//! certificate, no name, no authority.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key},
    pki_types::{
        CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
        UnixTime,
    },
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

/// The private key of this node, and the only key that it accepts.
pub(super) struct Pins<'a> {
    pub(super) own_pkcs8: &'a [u8],
    pub(super) own_public: [u8; 32],
    pub(super) peer_public: [u8; 32],
}

impl Pins<'_> {
    /// The side that opens the connection.
    pub(super) fn client(&self) -> Result<rustls::ClientConfig, Error> {
        let provider = provider();
        let own = Arc::new(AlwaysResolvesClientRawPublicKeys::new(
            self.certified(&provider)?,
        ));
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.pinned(provider))
            .with_client_cert_resolver(own);
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    /// The side that accepts it.
    pub(super) fn server(&self) -> Result<rustls::ServerConfig, Error> {
        let provider = provider();
        let own = Arc::new(AlwaysResolvesServerRawPublicKeys::new(
            self.certified(&provider)?,
        ));
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(self.pinned(provider))
            .with_cert_resolver(own);
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    fn certified(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.own_pkcs8.to_vec()));
        let signer = provider.key_provider.load_private_key(key)?;
        let public = CertificateDer::from(public_key_info(self.own_public));
        Ok(Arc::new(CertifiedKey::new(vec![public], signer)))
    }

    fn pinned(&self, provider: Arc<CryptoProvider>) -> Arc<Pinned> {
        Arc::new(Pinned {
            key_info: public_key_info(self.peer_public),
            provider,
        })
    }
}

/// Accepts one key.
#[derive(Debug)]
struct Pinned {
    key_info: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, presented: &CertificateDer<'_>) -> Result<(), Error> {
        let same = presented.as_ref() == self.key_info;
        same.then_some(()).ok_or(Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        ))
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }
}

/// TLS 1.2 is not offered, so nothing signed under it can be right.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(presented)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        presented: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(presented)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// QUIC needs AES-128-GCM for its first packets (RFC 9001 section 5.2), and it is the fastest where AES is in hardware.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}

/// SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 section 4).
fn public_key_info(key: [u8; 32]) -> Vec<u8> {
    [ED25519_KEY_INFO, &key].concat()
}

/// `SEQUENCE { AlgorithmIdentifier { 1.3.101.112 }, BIT STRING (32 bytes) }` up to the key.
const ED25519_KEY_INFO: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Two incompatible versions fail in the handshake, with a reason, and not later.
const ALPN: &[u8] = b"distmesh/1";
