//! The subject of a client's certificate as text.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::{Certificate, der::Decode};

/// The distinguished name as RFC 4514 writes it: the most specific part first, separated by commas without spaces, and with the
/// characters escaped that mean something in it, such as `CN=billing,O=Example\, Inc.`. `None` when the certificate cannot be read,
/// or names nobody.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let subject = certificate.tbs_certificate().subject().to_string();
    Some(subject.into()).filter(|subject: &Arc<str>| !subject.is_empty())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn subject_of(parts: &[(DnType, &str)]) -> Option<Arc<str>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        subject(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn subjects_are_written_as_rfc_4514_says() {
        let organization = (DnType::OrganizationName, "Example, Inc.");
        let text = subject_of(&[(DnType::CountryName, "DE"), organization, (DnType::CommonName, "billing")]);
        assert_eq!(text.as_deref(), Some("CN=billing,O=Example\\, Inc.,C=DE"));
        // A name cannot pretend to be two.
        let text = subject_of(&[(DnType::CommonName, "x,O=admin")]);
        assert_eq!(text.as_deref(), Some("CN=x\\,O=admin"));
        // Nor can it begin a line of the log.
        let text = subject_of(&[(DnType::CommonName, "x\nINFO y")]).unwrap();
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(subject_of(&[]), None);
    }

    #[test]
    fn what_is_no_certificate_has_no_subject() {
        assert_eq!(subject(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
