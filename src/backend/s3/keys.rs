//! The keys that requests are signed with.

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::config::Region;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use parking_lot::Mutex;
use std::time::SystemTime;

/// Fetches keys from the usual places, or from a profile that was asked for by name: then from
/// nowhere else.
///
/// Each time as if for the first time. The SDK's providers read `~/.aws` once, and tell only once
/// what is wrong with it; this one sees keys that have been replaced there. The SDK's cache asks
/// when keys expire, and every 15 minutes for keys that do not.
///
/// Once there were keys, what goes wrong with renewing them is taken for a passing fault.
#[derive(Debug)]
pub(super) struct Keys {
    profile: Option<String>,
    region: String,
    http_client: SharedHttpClient,
    last: Mutex<Option<Credentials>>,
}

impl Keys {
    /// `http_client`: for what hands out keys (STS, containers, machines).
    pub fn new(profile: Option<String>, region: String, http_client: SharedHttpClient) -> Keys {
        Keys { profile, region, http_client, last: Mutex::default() }
    }

    async fn fetch(&self) -> Result<Credentials, CredentialsError> {
        let region = Region::new(self.region.clone());
        let config = ProviderConfig::default().with_region(Some(region.clone()));
        let config = config.with_http_client(self.http_client.clone());
        match &self.profile {
            Some(profile) => {
                let keys = ProfileFileCredentialsProvider::builder().configure(&config).profile_name(profile).build();
                keys.provide_credentials().await
            }
            None => {
                let keys = DefaultCredentialsChain::builder().configure(config).region(region).build().await;
                keys.provide_credentials().await
            }
        }
    }

    async fn renew(&self) -> Result<Credentials, CredentialsError> {
        let fetched = self.fetch().await;
        let mut last = self.last.lock();
        let keys = choose(fetched, last.as_ref(), SystemTime::now())?;
        *last = Some(keys.clone());
        Ok(keys)
    }
}

/// What to use after keys were fetched or not, while `last` were in use.
fn choose(
    fetched: Result<Credentials, CredentialsError>,
    last: Option<&Credentials>,
    now: SystemTime,
) -> Result<Credentials, CredentialsError> {
    let (error, last) = match (fetched, last) {
        (Ok(keys), _) => return Ok(keys),
        (Err(error), None) => return Err(error),
        (Err(error), Some(last)) => (error, last),
    };
    if last.expiry().is_some_and(|expiry| expiry <= now) {
        return Err(CredentialsError::provider_error(error));
    }
    tracing::warn!("the S3 keys could not be renewed, those in use serve on: {error}");
    Ok(last.clone())
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.renew())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn keys(name: &str, expiry: Option<SystemTime>) -> Credentials {
        Credentials::new(name, "secret", None, expiry, "test")
    }

    fn failed() -> Result<Credentials, CredentialsError> {
        Err(CredentialsError::not_loaded("nobody hands them out"))
    }

    #[test]
    fn keys_that_cannot_be_renewed_serve_until_they_expire() {
        let now = SystemTime::now();
        let later = now + Duration::from_secs(5);
        assert_eq!(choose(Ok(keys("new", None)), Some(&keys("old", None)), now).unwrap().access_key_id(), "new");
        for expiry in [None, Some(later)] {
            assert_eq!(choose(failed(), Some(&keys("old", expiry)), now).unwrap().access_key_id(), "old");
        }
        let error = choose(failed(), Some(&keys("old", Some(now))), now).unwrap_err();
        assert!(matches!(error, CredentialsError::ProviderError(_)), "to be tried again: {error:?}");
        assert!(matches!(choose(failed(), None, now).unwrap_err(), CredentialsError::CredentialsNotLoaded(_)));
    }
}
