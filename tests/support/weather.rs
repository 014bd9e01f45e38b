//! How weak S3 is in tests that go through the fault proxy (C7).

/// What any request may meet, now and then; in the fault proxy's words. Late uploads may outlive who sent
/// them.
pub const WEATHER: &str = "
    any * delay=0ms..3ms
    any * p=0.02 delay=5ms..50ms
    any * p=0.02 delay-reply=5ms..50ms
    any * p=0.01 error
    any * p=0.005 slow-down
    put,delete * p=0.02 error-after
    any * p=0.01 reset
    any * p=0.015 lost-reply
    put * p=0.02 late=0ms..300ms
    get,list * p=0.015 cut-reply
    get * p=0.1 stale=0s..1s
    get * p=0.3 missing=0s..500ms
    list * p=0.3 list-hides=0s..2s
    list * p=0.3 list-shows=0s..2s
";
