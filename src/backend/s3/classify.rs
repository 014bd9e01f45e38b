//! What an answer, or its absence, means to who asked: errors by what the caller does next, each
//! with one line that says what happened, to what, and the cure.

use super::options::Place;
use crate::backend::ObjectError;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use std::error::Error;
use std::fmt;
use std::io;

const NO_KEYS: &str = "no S3 keys were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to \
     ~/.aws/credentials and name the profile with profile=";

/// What requests are sent to, for messages.
#[derive(Debug)]
pub(super) struct Target {
    pub place: Place,
    /// The endpoint, or Amazon's in words.
    pub server: String,
    pub region: String,
    /// The profile that was asked for, if one was.
    pub profile: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Create,
    Put,
    Get,
    List,
    Delete,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Create | Kind::Put => "PUT",
            Kind::Get => "GET",
            Kind::List => "LIST",
            Kind::Delete => "DELETE",
        })
    }
}

/// One request, for messages.
pub(super) struct Request<'a> {
    pub target: &'a Target,
    pub kind: Kind,
    /// The object's name below the prefix, or what a LIST's names begin with.
    pub name: &'a str,
}

/// A server's answer that is no success. Fields that it lacks are None.
#[derive(Default)]
pub(super) struct Answer<'a> {
    pub status: u16,
    pub code: Option<&'a str>,
    pub message: Option<&'a str>,
    /// The region that the bucket is in, as the answer says.
    pub region: Option<&'a str>,
    /// When it was sent, by the server's clock.
    pub date: Option<&'a str>,
}

impl Request<'_> {
    pub fn unknown(&self, what: impl fmt::Display) -> ObjectError {
        ObjectError::Unknown(format!("{} of {}: {what}", self.kind, self.object()).into())
    }

    fn object(&self) -> String {
        let Place { bucket, prefix, .. } = &self.target.place;
        format!("s3://{bucket}/{prefix}{}", self.name)
    }

    /// What the SDK's error means.
    pub fn classify<E>(&self, error: &SdkError<E, HttpResponse>) -> ObjectError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let SdkError::ServiceError(service) = error else {
            return self.classify_failure(error);
        };
        let raw = service.raw();
        let header = |name: &str| raw.headers().get(name);
        let body = raw.body().bytes().and_then(|body| std::str::from_utf8(body).ok()).unwrap_or("");
        self.classify_answer(&Answer {
            status: raw.status().as_u16(),
            code: service.err().code(),
            message: service.err().message().filter(|message| !message.is_empty()),
            region: header("x-amz-bucket-region").or(element(body, "Region")),
            date: header("date"),
        })
    }

    pub fn classify_answer(&self, answer: &Answer) -> ObjectError {
        use ObjectError::{Exists, Missing, Slow, Unknown};
        let Target { server, place, region, .. } = self.target;
        let Answer { status, code, .. } = *answer;
        let said = self.said(answer);
        let refused = |text: String| ObjectError::Refused(text.into());
        // The code first: servers and versions differ in the status that goes with it.
        match code.unwrap_or("") {
            "NoSuchBucket" => {
                return refused(format!(
                    "there is no bucket '{}' at {server}: make it first, or correct its name or the endpoint",
                    place.bucket
                ));
            }
            "InvalidAccessKeyId" => {
                return refused(format!(
                    "{server} does not know the access key: correct AWS_ACCESS_KEY_ID or the profile, or the endpoint"
                ));
            }
            "SignatureDoesNotMatch" => {
                return refused(format!(
                    "{server} refuses the signature: the secret key does not belong to the access key (correct \
                     AWS_SECRET_ACCESS_KEY or the profile)"
                ));
            }
            "RequestTimeTooSkewed" => {
                let date = answer.date.map(|date| format!(" (the server's says {date})")).unwrap_or_default();
                return refused(format!("{server} finds this machine's clock wrong{date}: set it"));
            }
            "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" => {
                return refused(format!("{server} finds the session token expired or wrong: get new credentials"));
            }
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "InvalidObjectState" => {
                return refused(format!(
                    "{said}: the keys in use may not do this; they need s3:GetObject, s3:PutObject, s3:DeleteObject \
                     and s3:ListBucket on {}",
                    place.name
                ));
            }
            "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => {
                return refused(format!("{said}: make room, or have the quota raised"));
            }
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => return refused(self.wrong_region(answer)),
            "SlowDown"
            | "ServiceUnavailable"
            | "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "TooManyRequests"
            | "BandwidthLimitExceeded"
            | "ConditionalRequestConflict"
            | "OperationAborted" => return Slow(said.into()),
            // The request was not what we sent, or not sent fast enough. Nothing was done; the next may get through.
            "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody" | "RequestTimeout" => {
                return Unknown(said.into());
            }
            _ => {}
        }
        match (status, self.kind) {
            (412, Kind::Create) => Exists,
            (404, Kind::Get) if code == Some("NoSuchKey") => Missing,
            // Somebody else's page. It must not pass for an object that is not there.
            (404, _) if matches!(code, None | Some("NotFound")) => {
                Unknown(format!("{said}, without saying what: is it an S3 server?").into())
            }
            (429, _) | (409, Kind::Create | Kind::Put) => Slow(said.into()),
            (501 | 400, Kind::Create) if status == 501 || code == Some("NotImplemented") => refused(format!(
                "{said}: this server lacks conditional PUT (If-None-Match), which keeps a store from having two writers"
            )),
            (301 | 302 | 307 | 308, _) => refused(self.wrong_region(answer)),
            // Who is in the way of the server may say 403 without saying why.
            (401 | 403, _) => {
                refused(format!("{said}: correct the keys, their rights on {}, or the clock", place.name))
            }
            (408 | 500..=599, _) if status != 501 => Unknown(said.into()),
            (200..=299, _) => Unknown(said.into()),
            _ => refused(format!("{said} (region {region})")),
        }
    }

    fn wrong_region(&self, answer: &Answer) -> String {
        let Target { server, place, region, .. } = self.target;
        match answer.region {
            Some(right) if right != region => {
                format!("the bucket '{}' is in region {right}, not {region}: give region={right}", place.bucket)
            }
            _ => format!(
                "the bucket '{}' is not served at {server} in region {region}: give the right region= or endpoint=",
                place.bucket
            ),
        }
    }

    /// "PUT of s3://b/k: http://... answered 503 SlowDown (Reduce your request rate)"
    fn said(&self, answer: &Answer) -> String {
        let code = answer.code.map(|code| format!(" {code}")).unwrap_or_default();
        let message = answer.message.map(|message| format!(" ({})", message.trim_end_matches('.'))).unwrap_or_default();
        format!("{} of {}: {} answered {}{code}{message}", self.kind, self.object(), self.target.server, answer.status)
    }

    /// What it means that there was no answer, or none that could be read.
    fn classify_failure(&self, error: &(dyn Error + 'static)) -> ObjectError {
        let server = &self.target.server;
        if let Some(credentials) = find::<CredentialsError>(error) {
            return self.classify_credentials(credentials);
        }
        // Found before the request went out: nothing was done.
        match find::<rustls::Error>(error) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                let text = format!(
                    "{server} shows a certificate that is not trusted ({}): give its authority with ca= or \
                     AWS_CA_BUNDLE",
                    certificate_fault(why)
                );
                return ObjectError::Refused(text.into());
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                return ObjectError::Refused(
                    format!("{server} does not speak TLS: write http:// if it is meant").into(),
                );
            }
            _ => {}
        }
        if is_connect_failure(error) {
            return ObjectError::Unknown(format!("cannot reach {server}: {}", root_cause(error)).into());
        }
        self.unknown(format_args!("no answer from {server}: {}", root_cause(error)))
    }

    fn classify_credentials(&self, error: &CredentialsError) -> ObjectError {
        let cause = root_cause(error);
        let text = match (&self.target.profile, error) {
            (None, CredentialsError::CredentialsNotLoaded(_)) => NO_KEYS.into(),
            // The last place to look, a cloud machine's own service, is turned off: that is final.
            (None, CredentialsError::ProviderError(_)) if cause.contains("IMDS is disabled") => NO_KEYS.into(),
            (Some(profile), CredentialsError::CredentialsNotLoaded(_)) => {
                format!("the profile '{profile}' has no S3 keys: write them to ~/.aws/credentials, or correct profile=")
            }
            (Some(profile), CredentialsError::InvalidConfiguration(_)) if cause.contains("was not defined") => {
                format!("there is no profile '{profile}' in ~/.aws/credentials or ~/.aws/config: correct profile=")
            }
            (_, CredentialsError::InvalidConfiguration(_)) => {
                format!("the settings that S3 keys come from are wrong: {cause}")
            }
            // A provider that was slow or ill may be well again.
            _ => return ObjectError::Unknown(format!("the S3 keys could not be fetched: {cause}").into()),
        };
        ObjectError::Refused(text.into())
    }
}

/// Whether the request did not even get a connection.
pub(super) fn is_connect_failure(error: &(dyn Error + 'static)) -> bool {
    // The HTTP client's type for it cannot be named from here; its text can.
    chain(error).any(|cause| cause.to_string().contains("client error (Connect)"))
}

fn certificate_fault(fault: &rustls::CertificateError) -> String {
    match fault {
        rustls::CertificateError::UnknownIssuer => "unknown authority".into(),
        rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. } => "expired".into(),
        rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. } => {
            "made for another name".into()
        }
        other => format!("{other:?}"),
    }
}

/// The text of the innermost cause, without what says nothing to people.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    if let Some(io) = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last() {
        let text = match io.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused",
            io::ErrorKind::ConnectionReset => "connection reset",
            io::ErrorKind::BrokenPipe => "connection closed",
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no route to it",
            _ => return io.to_string(),
        };
        return text.into();
    }
    let last = chain(error).last().map(|cause| cause.to_string()).unwrap_or_default();
    match last.as_str() {
        "timed out" => "it takes no connections".into(),
        _ => last,
    }
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|cause| cause.downcast_ref::<T>())
}

/// The error and its causes, also those that an [`io::Error`] wraps, which it does not name as its
/// source.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        let wrapped = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// The text of the first element of that name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once('<')?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::S3Options;

    fn target() -> Target {
        let options = S3Options { bucket: "b".into(), prefix: "p".into(), ..S3Options::default() };
        let place = Place::parse(&options).unwrap();
        Target { place, server: "http://host:1".into(), region: "us-east-1".into(), profile: None }
    }

    fn classified(kind: Kind, answer: Answer) -> ObjectError {
        Request { target: &target(), kind, name: "e1/c1" }.classify_answer(&answer)
    }

    fn code(kind: Kind, status: u16, code: &str) -> ObjectError {
        classified(kind, Answer { status, code: Some(code), ..Answer::default() })
    }

    fn bare(kind: Kind, status: u16) -> ObjectError {
        classified(kind, Answer { status, ..Answer::default() })
    }

    #[track_caller]
    fn is_refused_with(error: ObjectError, pieces: &[&str]) {
        let ObjectError::Refused(text) = &error else { panic!("{error:?}") };
        assert!(pieces.iter().all(|piece| text.contains(piece)) && !text.contains('\n'), "{text}");
    }

    #[test]
    fn answers_are_told_apart_by_what_to_do_next() {
        assert_eq!(code(Kind::Create, 412, "PreconditionFailed"), ObjectError::Exists);
        assert_eq!(code(Kind::Get, 404, "NoSuchKey"), ObjectError::Missing);
        for (kind, status, word) in [
            (Kind::Create, 409, "ConditionalRequestConflict"),
            (Kind::Put, 409, "OperationAborted"),
            (Kind::Get, 503, "SlowDown"),
            (Kind::List, 503, "ServiceUnavailable"),
            (Kind::Put, 429, "TooManyRequests"),
            (Kind::Put, 400, "RequestLimitExceeded"),
        ] {
            assert!(matches!(code(kind, status, word), ObjectError::Slow(_)), "{status} {word}");
        }
        for (kind, status, word) in [
            (Kind::Create, 500, "InternalError"),
            (Kind::Get, 504, "GatewayTimeout"),
            (Kind::Put, 400, "RequestTimeout"),
            (Kind::Put, 400, "XAmzContentSHA256Mismatch"),
            (Kind::Put, 400, "BadDigest"),
            (Kind::Get, 404, "NotFound"),
        ] {
            assert!(matches!(code(kind, status, word), ObjectError::Unknown(_)), "{status} {word}");
        }
        // What stands between may answer without knowing what the server did.
        for status in [404, 408, 500, 502, 503, 504] {
            assert!(matches!(bare(Kind::Create, status), ObjectError::Unknown(_)), "{status}");
        }
        assert!(matches!(bare(Kind::Put, 412), ObjectError::Refused(_)));
    }

    #[test]
    fn what_is_refused_says_what_to_do() {
        let put = |status, word| code(Kind::Put, status, word);
        is_refused_with(put(404, "NoSuchBucket"), &["no bucket 'b' at http://host:1", "make it"]);
        is_refused_with(put(403, "InvalidAccessKeyId"), &["does not know the access key", "AWS_ACCESS_KEY_ID"]);
        is_refused_with(put(403, "SignatureDoesNotMatch"), &["secret key", "AWS_SECRET_ACCESS_KEY"]);
        is_refused_with(put(403, "AccessDenied"), &["PUT of s3://b/p/e1/c1", "s3:PutObject", "on s3://b/p"]);
        is_refused_with(put(400, "ExpiredToken"), &["session token", "new credentials"]);
        is_refused_with(put(403, "QuotaExceeded"), &["quota"]);
        is_refused_with(bare(Kind::Get, 403), &["answered 403", "keys"]);
        is_refused_with(put(400, "InvalidArgument"), &["answered 400 InvalidArgument"]);
        is_refused_with(code(Kind::Create, 501, "NotImplemented"), &["conditional PUT"]);
        is_refused_with(code(Kind::Create, 400, "NotImplemented"), &["conditional PUT"]);
        let skewed = Answer {
            status: 403,
            code: Some("RequestTimeTooSkewed"),
            date: Some("Sun, 22 Nov 2026 16:04:33 GMT"),
            ..Answer::default()
        };
        is_refused_with(classified(Kind::Get, skewed), &["clock", "16:04:33", "set it"]);
    }

    #[test]
    fn the_right_region_is_named_if_the_answer_does() {
        let redirect = |word, region| Answer { status: 301, code: word, region, ..Answer::default() };
        let named = classified(Kind::Get, redirect(Some("PermanentRedirect"), Some("eu-west-1")));
        is_refused_with(named, &["'b' is in region eu-west-1, not us-east-1", "give region=eu-west-1"]);
        let named = code(Kind::Get, 400, "AuthorizationHeaderMalformed");
        is_refused_with(named, &["in region us-east-1", "region="]);
        is_refused_with(classified(Kind::Get, redirect(None, None)), &["region=", "endpoint="]);
        let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        assert_eq!(element(body, "Region"), Some("eu-west-1"));
        assert_eq!(element(body, "Endpoint"), None);
    }

    #[test]
    fn keys_that_are_not_found_are_refused_and_slow_ones_are_not() {
        let with_profile = Target { profile: Some("work".into()), ..target() };
        let classified = |target: &Target, error: CredentialsError| {
            Request { target, kind: Kind::Get, name: "x" }.classify_failure(&error)
        };
        let none = || CredentialsError::not_loaded_no_source();
        is_refused_with(classified(&target(), none()), &["no S3 keys were found", "AWS_ACCESS_KEY_ID"]);
        is_refused_with(classified(&with_profile, none()), &["profile 'work' has no S3 keys"]);
        let typo = CredentialsError::invalid_configuration("profile `work` was not defined");
        is_refused_with(classified(&with_profile, typo), &["no profile 'work'", "profile="]);
        let disabled = CredentialsError::provider_error("request forbidden: IMDS is disabled or not allowed");
        is_refused_with(classified(&target(), disabled), &["no S3 keys were found"]);
        let late = CredentialsError::provider_timed_out(std::time::Duration::from_secs(5));
        assert!(matches!(classified(&target(), late), ObjectError::Unknown(_)));
    }

    #[test]
    fn the_cause_is_found_inside_what_wraps_it() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let wrapped = io::Error::other(io::Error::other(refused));
        assert_eq!(root_cause(&wrapped), "connection refused");
        let tls = io::Error::new(
            io::ErrorKind::InvalidData,
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer),
        );
        let error = Request { target: &target(), kind: Kind::Get, name: "x" }.classify_failure(&tls);
        is_refused_with(error, &["unknown authority", "with ca= or"]);
    }
}
