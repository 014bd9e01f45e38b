//! The SDK's client: region, endpoint, keys and certificates put together, and everything of the
//! SDK turned off that would try again or wait by rules of its own.
//!
//! Proxies (`HTTP_PROXY` and the like) are not used.

use super::classify::Target;
use super::keys::Keys;
use super::options::{Endpoint, Place, S3Options, refuse};
use super::resolver::{Addresses, Resolver};
use super::trust::trust;
use crate::backend::ObjectError;
use aws_config::BehaviorVersion;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    AppName, Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use std::path::PathBuf;
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

    // The SDK passes over a URL that is none, and would ask Amazon.
    let told = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].map(|name| std::env::var(name).ok());
    let told = told.into_iter().flatten().find(|url| !url.is_empty());
    let url = options.endpoint.clone().or(told).or_else(|| settings.endpoint_url().map(str::to_owned));
    let endpoint = url.as_deref().map(Endpoint::parse).transpose()?;
    let region = match (settings.region(), &endpoint) {
        (Some(region), _) => region.to_string(),
        (None, Some(_)) => "us-east-1".into(),
        (None, None) => {
            return refuse("no region is set: give region=NAME, or set AWS_REGION; or endpoint=URL of a server".into());
        }
    };
    let is_tls = endpoint.as_ref().is_none_or(|endpoint| endpoint.is_tls);
    let trusted = if is_tls { trust(options.ca_file.as_deref().or(bundle.as_deref()))? } else { TrustStore::empty() };
    let addresses = Arc::new(Addresses::new(endpoint.as_ref().map_or(PORT_HTTPS, |endpoint| endpoint.port)));

    let keys = Keys::new(options.profile.clone(), region.clone(), for_keys);
    let mut builder = Builder::from(&settings)
        .region(Region::new(region.clone()))
        .credentials_provider(keys)
        .http_client(http_client(trusted, Some(Resolver(Arc::clone(&addresses)))))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::s3::resolver::LookupFuture;
    use aws_sdk_s3::config::Credentials;
    use std::io::{Read, Write};
    use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    /// Answers one request for each connection, when as many have come as the barrier waits for.
    fn serve(listener: TcpListener, barrier: Arc<Barrier>, served: Arc<AtomicUsize>) {
        for connection in listener.incoming().flatten() {
            let (barrier, served) = (Arc::clone(&barrier), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut connection: TcpStream = connection;
                // Probes connect and send nothing.
                if connection.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                    served.fetch_add(1, Ordering::SeqCst);
                    barrier.wait();
                    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            });
        }
    }

    #[test]
    fn connections_are_spread_over_the_addresses() {
        const REQUESTS: usize = 8;
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let listeners = [first, TcpListener::bind(("127.0.0.2", port)).unwrap()];
        let barrier = Arc::new(Barrier::new(REQUESTS));
        let served = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        for (listener, served) in listeners.into_iter().zip(served.clone()) {
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || serve(listener, barrier, served));
        }
        let found = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)].map(IpAddr::from).to_vec();
        let lookup = Box::new(move |_| -> LookupFuture {
            let found = found.clone();
            Box::pin(async move { Ok(found) })
        });
        let resolver = Resolver(Arc::new(Addresses::with_lookup(port, lookup)));
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://server.test:{port}"))
            .force_path_style(true)
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .http_client(http_client(TrustStore::empty(), Some(resolver)))
            .build();
        let client = Client::from_conf(config);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (sender, answers) = mpsc::channel();
        for _ in 0..REQUESTS {
            let (request, sender) = (client.get_object().bucket("b").key("k").send(), sender.clone());
            runtime.spawn(async move { sender.send(request.await.is_ok()) });
        }
        assert!((0..REQUESTS).all(|_| answers.recv().unwrap()));
        assert_eq!(served.map(|count| count.load(Ordering::SeqCst)), [REQUESTS / 2; 2]);
    }
}
