//! Whom a client trusts, and who it says that it is.

use std::{fs, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Files for connections over TLS.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Certificates of authorities that are trusted beside the system's, PEM.
    pub authority: Option<PathBuf>,
    /// The client's own certificate with its chain, and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Trust {
    /// The settings of connections. Only a client that needs TLS reads certificates.
    ///
    /// # Errors
    /// A file that cannot be read, named in the message.
    pub fn config(&self, is_needed: bool) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        if !is_needed {
            return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
        }
        let builder = builder.with_root_certificates(self.roots()?);
        let Some((certificate, key)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(certificate)?;
        let read = fs::read(key).map_err(|error| format!("{}: {error}", key.display()))?;
        let read = PrivateKeyDer::from_pem_slice(&read);
        let private = read.map_err(|_| format!("{}: has no private key in PEM", key.display()))?;
        builder
            .with_client_auth_cert(chain, private)
            .map_err(|error| format!("{}: does not go with the key: {error}", certificate.display()))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(file) = &self.authority {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
        if roots.is_empty() {
            return Err("this system has no trusted certificates, which https needs; --ca FILE names one".to_owned());
        }
        Ok(roots)
    }
}

fn certificates(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let read = fs::read(file).map_err(|error| wrong(&error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(wrong(&"has no certificate in PEM")),
    }
}
