//! The SDK's client: keys, region, endpoint, certificates, and everything of the SDK turned off
//! that would try again or wait by rules of its own.
//!
//! Proxies (`HTTP_PROXY` and the like) are not used.

use super::classify::Target;
use super::options::{Endpoint, Place, S3Options, refuse};
use super::resolver::{Addresses, Resolver};
use crate::backend::ObjectError;
use aws_config::BehaviorVersion;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    AppName, Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// To connect, TLS included, to one of the addresses that were given.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections are closed after this, before the servers in use do (Amazon's: 20 s or more),
/// so that a request hardly ever goes out on a connection that ends just then.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const PORT_HTTPS: u16 = 443;

/// What one talks to a bucket with.
pub(super) struct Connection {
    pub client: Client,
    pub target: Target,
    pub addresses: Arc<Addresses>,
}

/// Reads settings and certificates; sends nothing.
pub(super) async fn connect(options: &S3Options) -> Result<Connection, ObjectError> {
    let place = Place::parse(options)?;
    let bundle = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let for_keys = http_client(trust(bundle.as_deref())?, None);
    let region = RegionProviderChain::first_try(options.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(region_of_profile(options.profile.as_deref()));
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(region).no_credentials();
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    let settings = loader.load().await;

    let url = options.endpoint.clone().or_else(|| std::env::var("AWS_ENDPOINT_URL_S3").ok());
    let url = url.or_else(|| settings.endpoint_url().map(str::to_owned));
    let endpoint = url.as_deref().map(Endpoint::parse).transpose()?;
    let region = match (settings.region(), &endpoint) {
        (Some(region), _) => region.to_string(),
        (None, Some(_)) => "us-east-1".into(),
        (None, None) => {
            return refuse("no region is set: give region=NAME, or set AWS_REGION; or endpoint=URL of a server".into());
        }
    };
    let is_tls = endpoint.as_ref().is_none_or(|endpoint| endpoint.is_tls);
    let trust = if is_tls { trust(options.ca_file.as_deref().or(bundle.as_deref()))? } else { TrustStore::empty() };
    let addresses = Arc::new(Addresses::new(endpoint.as_ref().map_or(PORT_HTTPS, |endpoint| endpoint.port)));

    let keys = Keys { profile: options.profile.clone(), region: region.clone(), http_client: for_keys };
    let mut builder = Builder::from(&settings)
        .region(Region::new(region.clone()))
        .credentials_provider(keys)
        .http_client(http_client(trust, Some(Resolver(Arc::clone(&addresses)))))
        .force_path_style(options.path_style.unwrap_or(endpoint.is_some()))
        // Each attempt is counted, timed and repeated by rules of ours; a repeated create can meet
        // its own success.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // The signature covers the body already.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .app_name(AppName::new("kivafs").expect("letters only"));
    let server = match endpoint {
        Some(endpoint) => {
            builder = builder.endpoint_url(&endpoint.url);
            endpoint.url
        }
        None => format!("Amazon S3 in {region}"),
    };
    let target = Target { place, server, region, profile: options.profile.clone() };
    Ok(Connection { client: Client::from_conf(builder.build()), target, addresses })
}

fn region_of_profile(profile: Option<&str>) -> ProfileFileRegionProvider {
    let builder = ProfileFileRegionProvider::builder();
    match profile {
        Some(profile) => builder.profile_name(profile).build(),
        None => builder.build(),
    }
}

/// Fetches keys from the usual places, or from a profile that was asked for by name: then from
/// nowhere else.
///
/// Each time as if for the first time. The SDK's providers read `~/.aws` once and tell only once
/// what is wrong with it; this one sees keys that have been replaced there. The SDK asks again when
/// keys expire, and every 15 minutes for keys that do not.
#[derive(Debug)]
struct Keys {
    profile: Option<String>,
    region: String,
    http_client: SharedHttpClient,
}

impl Keys {
    async fn fetch(&self) -> Result<Credentials, CredentialsError> {
        let region = Region::new(self.region.clone());
        let config = ProviderConfig::default().with_region(Some(region)).with_http_client(self.http_client.clone());
        match &self.profile {
            Some(profile) => {
                let keys = ProfileFileCredentialsProvider::builder().configure(&config).profile_name(profile).build();
                keys.provide_credentials().await
            }
            None => DefaultCredentialsChain::builder().configure(config).build().await.provide_credentials().await,
        }
    }
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.fetch())
    }
}

/// Connects with rustls and ring; finds addresses with `resolver`, or as the system does.
fn http_client(trust: TrustStore, resolver: Option<Resolver>) -> SharedHttpClient {
    let tls = TlsContext::builder().with_trust_store(trust).build().expect("nothing in it can be wrong");
    let builder = aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls);
    match resolver {
        Some(resolver) => builder.build_with_resolver(resolver),
        None => builder.build_https(),
    }
}

/// The certificates in the file, or the system's.
///
/// The SDK panics on a certificate that it cannot read, and bundles have such: so each is tried
/// here and left out if need be.
fn trust(ca_file: Option<&Path>) -> Result<TrustStore, ObjectError> {
    let Some(path) = ca_file else { return Ok(TrustStore::default()) };
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

/// Each certificate of a PEM file, with its marks.
fn certificates(text: &str) -> impl Iterator<Item = &str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let starts = text.match_indices(BEGIN).map(|(start, _)| &text[start..]);
    starts.filter_map(|rest| rest.find(END).map(|end| &rest[..end + END.len()]))
}
