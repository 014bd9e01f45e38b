//! Which certificates servers are believed by.

use super::options::refuse;
use crate::backend::ObjectError;
use aws_smithy_http_client::tls::TrustStore;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::sync::OnceLock;

/// The certificates in the file, or the system's.
///
/// The SDK panics on a certificate that it cannot read, and bundles have such: so each is tried
/// here, and left out if need be.
pub(super) fn trust(ca_file: Option<&Path>) -> Result<TrustStore, ObjectError> {
    let Some(path) = ca_file else { return Ok(trust_of_the_system()) };
    let text = match std::fs::read(path) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => return refuse(format!("cannot read the certificates in {}: {error}", path.display())),
    };
    let mut trust = TrustStore::empty();
    let mut tried = RootCertStore::empty();
    for pem in certificates(&text) {
        let is_good = CertificateDer::from_pem_slice(pem.as_bytes()).is_ok_and(|der| tried.add(der).is_ok());
        if is_good {
            trust.add_pem_certificate(pem);
        }
    }
    if tried.is_empty() {
        return refuse(format!("{} holds no certificate in PEM form", path.display()));
    }
    Ok(trust)
}

/// The SDK reads the system's certificates, and asserts in debug builds that it finds some, also
/// where nothing needs them. Bare containers have none.
fn trust_of_the_system() -> TrustStore {
    static HAS_SOME: OnceLock<bool> = OnceLock::new();
    let has_some = HAS_SOME.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs().certs;
        RootCertStore::empty().add_parsable_certificates(found).0 > 0
    });
    TrustStore::empty().with_native_roots(*has_some)
}

/// Each certificate of a PEM file, with its marks.
fn certificates(text: &str) -> impl Iterator<Item = &str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let starts = text.match_indices(BEGIN).map(|(start, _)| &text[start..]);
    starts.filter_map(|rest| rest.find(END).map(|end| &rest[..end + END.len()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let good = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap().cert.pem();
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(&format!("# first\n{good}\n{bad}{good}-----BEGIN CERTIFICATE-----")).count(), 3);
        let path = std::env::temp_dir().join(format!("kivafs-trust-{}.pem", std::process::id()));
        let mut refused = Vec::new();
        for text in [format!("{bad}{good}{bad}"), bad.into(), String::new()] {
            std::fs::write(&path, text).unwrap();
            refused.push(trust(Some(&path)).is_err());
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(refused, [false, true, true]);
    }
}
