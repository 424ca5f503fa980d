//! How many requests somebody may make: a bucket each, which fills steadily and from which every request takes one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Who are remembered. When there are more, the one whose bucket is fullest starts anew: that costs him nothing, or
/// the least.
const KEYS_MAX: usize = 50_000;
/// A bucket holds what fills it in this many milliseconds: a page opened asks a few dozen things at once.
const BURST_MS: i64 = 20_000;
const MINUTE_MS: i64 = 60_000;

/// Whose requests are counted together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Key {
    /// Those with one token, by its hash.
    Token([u8; 32]),
    /// Those without any, from one address (of IPv6, one customer's 64 bits).
    Address([u8; 16]),
}

impl Key {
    /// The key of an address.
    pub(crate) fn address(ip: core::net::IpAddr) -> Self {
        let mut octets = match ip {
            core::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(ip) => ip.octets(),
        };
        if ip.is_ipv6() {
            octets[8..].fill(0);
        }
        Self::Address(octets)
    }
}

/// All buckets. Of each it is enough to know when it will be full (GCRA, ITU-T I.371).
#[derive(Debug)]
pub(crate) struct Rates {
    per_minute: i64,
    full_at: Mutex<BTreeMap<Key, i64>>,
}

impl Rates {
    /// Buckets for this many requests a minute; none are counted if it is 0.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute: per_minute.into(), full_at: Mutex::default() }
    }

    /// Takes one request out of a bucket.
    ///
    /// # Errors
    /// If it is empty: how many milliseconds to wait for the next.
    pub(crate) fn take(&self, key: Key, now: i64) -> Result<(), i64> {
        if self.per_minute == 0 {
            return Ok(());
        }
        // Microseconds: a minute by 6,000,000 requests is no millisecond.
        let (now, cost) = (now.saturating_mul(1_000), MINUTE_MS * 1_000 / self.per_minute);
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = all.get(&key).copied().unwrap_or(now).max(now);
        let late = full_at.saturating_add(cost) - now.saturating_add((BURST_MS * 1_000).max(cost));
        if late > 0 {
            return Err(late / 1_000 + 1);
        }
        if all.len() >= KEYS_MAX && !all.contains_key(&key) {
            all.retain(|_, full_at| *full_at > now);
            if all.len() >= KEYS_MAX {
                let fullest = all.iter().min_by_key(|(_, full_at)| **full_at).map(|(key, _)| key.clone());
                fullest.and_then(|key| all.remove(&key));
            }
        }
        all.insert(key, full_at + cost);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u32) -> Key {
        Key::address(core::net::Ipv4Addr::from_bits(n).into())
    }

    #[test]
    fn a_bucket_empties_at_once_and_fills_steadily() {
        let rates = Rates::new(60);
        for _ in 0..20 {
            assert_eq!(rates.take(host(1), 5_000), Ok(()));
        }
        assert_eq!(rates.take(host(1), 5_000), Err(1_001));
        assert_eq!(rates.take(host(2), 5_000), Ok(()), "everybody has a bucket");
        assert_eq!(rates.take(host(1), 6_000), Ok(()));
        assert!(rates.take(host(1), 6_500).is_err());
        assert!((0..60).all(|n| rates.take(host(1), 7_000 + n * 1_000).is_ok()));
    }

    #[test]
    fn slow_and_endless_rates_work_too() {
        let slow = Rates::new(1);
        assert_eq!(slow.take(host(1), 0), Ok(()));
        assert_eq!(slow.take(host(1), 1_000), Err(59_001));
        assert_eq!(slow.take(host(1), 60_000), Ok(()));
        let endless = Rates::new(0);
        assert!((0..100_000).all(|_| endless.take(host(1), 0).is_ok()));
    }

    #[test]
    fn neighbours_in_one_ipv6_network_share_a_bucket() {
        let key = |text: &str| Key::address(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_frees_nobody_who_is_over() {
        let rates = Rates::new(60);
        while rates.take(host(u32::MAX), 0).is_ok() {}
        for n in 0..u32::try_from(KEYS_MAX).unwrap() + 100 {
            assert_eq!(rates.take(host(n), 0), Ok(()));
        }
        assert_eq!(rates.full_at.lock().unwrap().len(), KEYS_MAX);
        assert!(rates.take(host(u32::MAX), 0).is_err());
    }
}
