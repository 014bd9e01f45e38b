//! Many requests in flight over one connection, as kivaloo's own clients have them.

use crate::bench::figures::{Answer, text};
use crate::bench::meter::Meter;
use crate::kvlds::client::Client;

/// Requests that are asked and not answered.
pub const IN_FLIGHT: u64 = 4096;

/// Asks and counts until the meter has enough, or `next`, which asks one thing, has no more; returns when
/// all is answered. That something was not done is an error.
pub fn fly(client: &mut Client, meter: &mut Meter<'_>, next: &mut dyn FnMut(&mut Client) -> bool) -> Answer<()> {
    let (mut in_flight, mut more) = (0, true);
    loop {
        while more && in_flight < IN_FLIGHT {
            more = next(client);
            in_flight += u64::from(more);
        }
        if in_flight == 0 {
            return Ok(());
        }
        client.flush().map_err(text)?;
        let before = in_flight;
        let mut answer = Some(client.receive().map_err(text)?);
        while let Some((_, record)) = answer {
            // So begins the answer to whatever was done.
            if !record.starts_with(&[0; 4]) {
                return Err("a pair that was loaded is not there".into());
            }
            in_flight -= 1;
            answer = client.next_received().map_err(text)?;
        }
        more &= meter.count(before - in_flight)?;
    }
}
