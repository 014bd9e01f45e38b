//! info --cost: what a store's requests cost, beside the same writes in DynamoDB.
//!
//! Kivaloo claimed in 2012 to be cheaper than DynamoDB by two orders of magnitude, because it sends
//! one request for many changes. This tells, of each store, by how much that is so; of one that is
//! synced after each tiny change it is not. The prices are list prices of one region at one time:
//! they serve to compare, not to foresee a bill.
//!
//! "The same writes" are the changes of keys that were committed, each a write of its own. A write
//! of DynamoDB takes one unit for each KiB that was begun. Only the sum of all bytes is known here,
//! so that the units counted are the fewest that there can be.

use crate::shown::{bytes, count};
use kivafs::store::{BucketInfo, Info};
use serde_json::json;
use std::fmt;

/// What the prices are.
pub const PRICES: &str = "list prices of us-east-1, March 2026";

/// Billionths of a dollar for one.
const PUT: u64 = 5_000;
const LIST: u64 = 5_000;
const GET: u64 = 400;
const WRITE_UNIT: u64 = 625;
/// For a GiB.
const STORED_A_MONTH: u64 = 23_000_000;
const OUT_OF_THE_REGION: u64 = 90_000_000;
const DYNAMO_STORED_A_MONTH: u64 = 250_000_000;

const WRITE_UNIT_BYTES: u64 = 1 << 10;

/// An amount of money, in billionths of a dollar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dollars(u128);

impl Dollars {
    fn of(number: u64, price: u64) -> Dollars {
        Dollars(u128::from(number) * u128::from(price))
    }

    /// Of so many bytes, at that price for a GiB; to the nearest billionth.
    fn of_bytes(bytes: u64, price: u64) -> Dollars {
        Dollars((u128::from(bytes) * u128::from(price) + (1 << 29)) >> 30)
    }

    fn as_float(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl std::ops::Add for Dollars {
    type Output = Dollars;

    fn add(self, other: Dollars) -> Dollars {
        Dollars(self.0 + other.0)
    }
}

impl fmt::Display for Dollars {
    /// In cents; what is less, with two digits that say something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CENT: u128 = 10_000_000;
        match self.0 {
            0 => f.write_str("$0"),
            nanos @ 1..CENT => {
                let places = 9 - (nanos.ilog10() as usize).saturating_sub(1);
                write!(f, "${:.places$}", self.as_float())
            }
            nanos => {
                let cents = (nanos + CENT / 2) / CENT;
                let dollars = u64::try_from(cents / 100).unwrap_or(u64::MAX);
                write!(f, "${}.{:02}", count(dollars), cents % 100)
            }
        }
    }
}

/// What a store has cost and goes on to cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// For its requests so far.
    pub puts: Dollars,
    pub gets: Dollars,
    pub lists: Dollars,
    /// For what it has received, if that left Amazon's network; in the region it is free.
    pub received_outside: Dollars,
    /// For what it takes, a month.
    pub stored: Dollars,
    /// The fewest units that DynamoDB would have counted for the same writes.
    pub write_units: u64,
    pub dynamo_writes: Dollars,
    pub dynamo_stored: Dollars,
}

impl Cost {
    /// Of a store in a bucket, of which the segments take so many bytes, and so many live.
    pub fn of(bucket: &BucketInfo, taken_bytes: u64, live_bytes: u64) -> Cost {
        let usage = &bucket.usage;
        let write_units = bucket.changes.max(bucket.changed_bytes.div_ceil(WRITE_UNIT_BYTES));
        Cost {
            puts: Dollars::of(usage.puts, PUT),
            gets: Dollars::of(usage.gets, GET),
            lists: Dollars::of(usage.lists, LIST),
            received_outside: Dollars::of_bytes(usage.bytes_down, OUT_OF_THE_REGION),
            stored: Dollars::of_bytes(taken_bytes, STORED_A_MONTH),
            write_units,
            dynamo_writes: Dollars::of(write_units, WRITE_UNIT),
            dynamo_stored: Dollars::of_bytes(live_bytes, DYNAMO_STORED_A_MONTH),
        }
    }

    /// All requests; deleting is free.
    pub fn requests(&self) -> Dollars {
        self.puts + self.gets + self.lists
    }

    /// How many times as much DynamoDB takes for the writes as S3 for all requests.
    fn ratio(&self) -> Option<f64> {
        let ours = self.requests().as_float();
        (ours > 0.0).then(|| self.dynamo_writes.as_float() / ours)
    }

    /// For people.
    pub fn text(&self, info: &Info, bucket: &BucketInfo) -> String {
        let usage = &bucket.usage;
        let live = bytes(info.live_bytes);
        let mut text = format!("\nS3 Standard, {PRICES}\n");
        let mut line = |what: String, price: &str, cost: String| {
            text.push_str(&format!("  {what:<34}{price:<27}{cost}\n"));
        };
        line(format!("{} PUT", count(usage.puts)), "$5.00 a million", self.puts.to_string());
        line(format!("{} GET", count(usage.gets)), "$0.40 a million", self.gets.to_string());
        line(format!("{} LIST", count(usage.lists)), "$5.00 a million", self.lists.to_string());
        line(format!("{} DELETE", count(usage.deletes)), "free", "$0".into());
        line("all requests so far".into(), "", self.requests().to_string());
        line(format!("{} sent", bytes(usage.bytes_up)), "free", "$0".into());
        line(
            format!("{} received", bytes(usage.bytes_down)),
            "free in the region",
            format!("$0 (elsewhere {}: $0.09 a GB)", self.received_outside),
        );
        let taken = bytes(info.occupied_bytes.unwrap_or(info.live_bytes));
        line(format!("{taken} of segments"), "$0.023 a GB", format!("{} a month", self.stored));
        text.push_str("\nThe same writes in DynamoDB on demand, at least\n");
        let mut line = |what: String, price: &str, cost: String| {
            text.push_str(&format!("  {what:<34}{price:<27}{cost}\n"));
        };
        let changed = format!("{} changes of {}", count(bucket.changes), bytes(bucket.changed_bytes));
        line(changed, "", format!("{} write units", count(self.write_units)));
        line("write units".into(), "$0.625 a million", self.dynamo_writes.to_string());
        line(format!("{live} of live data"), "$0.25 a GB", format!("{} a month", self.dynamo_stored));
        if let Some(ratio) = self.ratio() {
            let ratio = match ratio {
                10.0.. => count(ratio.round() as u64),
                ratio => format!("{ratio:.1}"),
            };
            text.push_str(&format!("\nThere the writes cost {ratio} times what all requests have cost here.\n"));
        }
        text
    }

    /// For programs, in dollars.
    pub fn json(&self) -> serde_json::Value {
        json!({
            "prices": PRICES,
            "currency": "USD",
            "s3": {
                "puts": self.puts.as_float(),
                "gets": self.gets.as_float(),
                "lists": self.lists.as_float(),
                "deletes": 0.0,
                "requests": self.requests().as_float(),
                "received_in_region": 0.0,
                "received_elsewhere": self.received_outside.as_float(),
                "stored_a_month": self.stored.as_float(),
            },
            "dynamodb": {
                "write_units": self.write_units,
                "writes": self.dynamo_writes.as_float(),
                "stored_a_month": self.dynamo_stored.as_float(),
            },
            "ratio": self.ratio(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kivafs::backend::Usage;

    fn bucket() -> BucketInfo {
        let usage = Usage {
            puts: 1_234_567,
            gets: 10_000_000,
            lists: 12,
            deletes: 1 << 40,
            bytes_up: 1 << 50,
            bytes_down: 3 << 29,
        };
        BucketInfo { usage, changes: 1_000_000_000, changed_bytes: 80_000_000_000, fencing_proven: true }
    }

    #[test]
    fn each_kind_of_request_has_its_price() {
        let cost = Cost::of(&bucket(), 10 << 30, 8 << 30);
        // $0.005 a 1,000; $0.0004 a 1,000; $0.09 and $0.023 a GB.
        assert_eq!(cost.puts, Dollars(6_172_835_000));
        assert_eq!(cost.gets, Dollars(4_000_000_000));
        assert_eq!(cost.lists, Dollars(60_000));
        assert_eq!(cost.requests(), Dollars(10_172_895_000));
        assert_eq!(cost.received_outside, Dollars(135_000_000));
        assert_eq!(cost.stored, Dollars(230_000_000));
        assert_eq!(cost.dynamo_stored, Dollars(2_000_000_000));
    }

    #[test]
    fn a_write_takes_a_unit_for_each_kib_and_at_least_one() {
        let cost = Cost::of(&bucket(), 0, 0);
        assert_eq!((cost.write_units, cost.dynamo_writes), (1_000_000_000, Dollars(625_000_000_000)));
        let units =
            |changes, changed_bytes| Cost::of(&BucketInfo { changes, changed_bytes, ..bucket() }, 0, 0).write_units;
        assert_eq!([units(0, 0), units(1, 1), units(1, 1024), units(1, 1025)], [0, 1, 1, 2]);
        assert_eq!(units(7, 1 << 20), 1024);
        assert_eq!(units(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn money_for_people() {
        let shown = |nanos| Dollars(nanos).to_string();
        assert_eq!(shown(0), "$0");
        assert_eq!(shown(1), "$0.000000001");
        assert_eq!(shown(400), "$0.00000040");
        assert_eq!(shown(22_400), "$0.000022");
        assert_eq!(shown(9_900_000), "$0.0099");
        assert_eq!(shown(10_000_000), "$0.01");
        assert_eq!(shown(12_345_000_000), "$12.35");
        assert_eq!(shown(1_234_567_890_000_000), "$1,234,567.89");
    }

    #[test]
    fn nothing_is_compared_with_nothing() {
        let none = BucketInfo { usage: Usage::default(), changes: 0, changed_bytes: 0, ..bucket() };
        assert_eq!(Cost::of(&none, 0, 0).ratio(), None);
        assert_eq!(Cost::of(&none, 0, 0).json()["ratio"], serde_json::Value::Null);
        let ratio = Cost::of(&bucket(), 0, 0).ratio().unwrap();
        assert!((61.4..61.5).contains(&ratio), "{ratio}");
    }
}
