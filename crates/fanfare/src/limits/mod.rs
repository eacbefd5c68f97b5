//! Owns how much anybody may ask for: token buckets for commands, handshakes, requests and events, and a head count for
//! the sockets of a user. Does not know what is asked for. Invariant: whatever is kept for somebody is bounded, and goes
//! once it says no more than a bucket that is full.
//!
//! A bucket holds as much as [`LimitsConfig::burst`] brings at its rate; what is taken comes back at that rate. Buckets
//! of sockets and users are reached from the socket itself, without a lock; those of addresses and keys stand in a table,
//! which handshakes and requests look into.

mod buckets;
mod seats;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::Quota;
use hub::principal::Principal;

use self::buckets::{Bucket, Buckets};
use self::seats::Seats;
use crate::codes::{Code, Fault};
use crate::config::nonzero;
use crate::settings;

pub(crate) use self::seats::Seat;

/// Time between two looks for what can go. Lower: more work for nothing. Higher: more of it stands around.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Addresses that are told apart. 100,000 take some 10 MB; those that come while the table is full share one bucket.
const ADDRESSES_MAX: usize = 100_000;

/// Keys and admins that are told apart; those that come while the table is full share one bucket.
const PUBLISHERS_MAX: usize = 10_000;

/// The highest rate, a second. Beyond it a bucket fills faster than the clock counts.
const RATE_MAX: u32 = 10_000_000;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Commands of one socket.
    CommandsPerSocket,
    /// Commands of all sockets of one user.
    CommandsPerUser,
    /// Sessions opened and namespaces connected to from one address.
    HandshakesPerAddress,
    /// Requests with one key, or with tokens of one admin.
    RequestsPerKey,
    /// Events published with them.
    EventsPerKey,
    /// Sockets of one user.
    SocketsPerUser,
}

impl Limit {
    /// Every limit there is.
    pub(crate) const ALL: [Limit; 6] = [
        Limit::CommandsPerSocket,
        Limit::CommandsPerUser,
        Limit::HandshakesPerAddress,
        Limit::RequestsPerKey,
        Limit::EventsPerKey,
        Limit::SocketsPerUser,
    ];

    /// Its key in the settings.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Limit::CommandsPerSocket => "commands_per_socket",
            Limit::CommandsPerUser => "commands_per_user",
            Limit::HandshakesPerAddress => "handshakes_per_address",
            Limit::RequestsPerKey => "requests_per_key",
            Limit::EventsPerKey => "events_per_key",
            Limit::SocketsPerUser => "sockets_per_user",
        }
    }
}

/// The limits as numbers; `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitsConfig {
    commands_per_socket: Option<Quota>,
    commands_per_user: Option<Quota>,
    handshakes_per_address: Option<Quota>,
    requests_per_key: Option<Quota>,
    events_per_key: Option<Quota>,
    sockets_per_user: Option<usize>,
    /// How many seconds' worth a full bucket holds.
    burst: Duration,
}

impl LimitsConfig {
    /// Converts the section.
    ///
    /// # Errors
    /// Whoever wrote the settings is at fault.
    pub(crate) fn convert(raw: &settings::Limits) -> Result<Self, String> {
        let burst = nonzero("limits.burst", &raw.burst)?;
        let seconds = NonZeroU32::new(u32::try_from(burst.as_secs()).unwrap_or(u32::MAX));
        let seconds = seconds.unwrap_or(NonZeroU32::MIN);
        let quota = |limit: Limit, rate: u32| {
            if rate > RATE_MAX {
                return Err(format!("limits.{} of {rate} exceeds {RATE_MAX}; 0 is no limit", limit.as_str()));
            }
            let Some(rate) = NonZeroU32::new(rate) else { return Ok(None) };
            let burst = rate.saturating_mul(seconds);
            Ok(Some(Quota::per_second(rate).allow_burst(burst)))
        };
        Ok(Self {
            commands_per_socket: quota(Limit::CommandsPerSocket, raw.commands_per_socket)?,
            commands_per_user: quota(Limit::CommandsPerUser, raw.commands_per_user)?,
            handshakes_per_address: quota(Limit::HandshakesPerAddress, raw.handshakes_per_address)?,
            requests_per_key: quota(Limit::RequestsPerKey, raw.requests_per_key)?,
            events_per_key: quota(Limit::EventsPerKey, raw.events_per_key)?,
            sockets_per_user: Some(raw.sockets_per_user).filter(|sockets| *sockets > 0),
            burst: Duration::from_secs(seconds.get().into()),
        })
    }
}

/// Lets through what is within the limits.
pub(crate) struct Limits {
    commands_per_socket: Option<Quota>,
    handshakes: Option<Buckets<IpAddr>>,
    requests: Option<Buckets<Box<str>>>,
    events: Option<Buckets<Box<str>>>,
    seats: Arc<Seats>,
    refused: [AtomicU64; Limit::ALL.len()],
}

impl Limits {
    /// Nobody has asked for anything yet.
    pub(crate) fn new(config: &LimitsConfig) -> Arc<Self> {
        // What nobody comes from and nobody is called.
        let nowhere = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let buckets = |quota: Option<Quota>| Some(Buckets::new(quota?, PUBLISHERS_MAX, Box::default()));
        Arc::new(Self {
            commands_per_socket: config.commands_per_socket,
            handshakes: config
                .handshakes_per_address
                .map(|quota| Buckets::new(quota, ADDRESSES_MAX, nowhere)),
            requests: buckets(config.requests_per_key),
            events: buckets(config.events_per_key),
            seats: Seats::new(config.sockets_per_user, config.commands_per_user, config.burst),
            refused: Default::default(),
        })
    }

    /// Forgets whoever could have asked for more, until the process ends.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(handshakes) = &self.handshakes {
                handshakes.sweep();
            }
            for buckets in [&self.requests, &self.events].into_iter().flatten() {
                buckets.sweep();
            }
            self.seats.sweep();
        }
    }

    /// Someone opens a session, or connects to a namespace.
    ///
    /// # Errors
    /// [`Code::RateLimited`].
    pub(crate) fn handshake(&self, address: Option<IpAddr>) -> Result<(), Fault> {
        let (Some(buckets), Some(address)) = (&self.handshakes, address) else { return Ok(()) };
        buckets
            .take(&network(address), NonZeroU32::MIN)
            .map_err(|wait| self.refuse(Limit::HandshakesPerAddress, wait))
    }

    /// A key or an admin's token sends a request.
    ///
    /// # Errors
    /// [`Code::RateLimited`].
    pub(crate) fn request(&self, principal: &Principal) -> Result<(), Fault> {
        let (Some(buckets), Some(name)) = (&self.requests, &principal.user) else { return Ok(()) };
        buckets.take(name, NonZeroU32::MIN).map_err(|wait| self.refuse(Limit::RequestsPerKey, wait))
    }

    /// It publishes so many events at once.
    ///
    /// # Errors
    /// [`Code::RateLimited`]; [`Code::TooMany`] if even a full bucket has fewer.
    pub(crate) fn events(&self, principal: &Principal, count: usize) -> Result<(), Fault> {
        let (Some(buckets), Some(name)) = (&self.events, &principal.user) else { return Ok(()) };
        let Some(count) = NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX)) else { return Ok(()) };
        if count > buckets.capacity() {
            self.count(Limit::EventsPerKey);
            let complaint = format!("{count} events at once exceed {}", buckets.capacity());
            return Err(Fault::new(Code::TooMany, format!("{complaint}: see limits.events_per_key")));
        }
        buckets.take(name, count).map_err(|wait| self.refuse(Limit::EventsPerKey, wait))
    }

    /// A place for a socket of this user, held for as long as it is kept.
    ///
    /// # Errors
    /// [`Code::TooManySockets`].
    pub(crate) fn seat(&self, principal: &Principal) -> Result<Seat, Fault> {
        let own = self.commands_per_socket.map(Bucket::new);
        match self.seats.take(principal.user.as_deref(), own) {
            Ok(seat) => Ok(seat),
            Err(max) => {
                self.count(Limit::SocketsPerUser);
                let complaint = format!("this user has {max} sockets, and may have no more");
                Err(Fault::new(Code::TooManySockets, complaint))
            }
        }
    }

    /// A socket sends a command.
    ///
    /// # Errors
    /// [`Code::RateLimited`].
    pub(crate) fn command(&self, seat: &Seat) -> Result<(), Fault> {
        seat.take_command().map_err(|(limit, wait)| self.refuse(limit, wait))
    }

    /// Refusals so far, by limit.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.refused.iter().map(|count| count.load(Ordering::Relaxed));
        Limit::ALL.into_iter().map(Limit::as_str).zip(counts)
    }

    fn refuse(&self, limit: Limit, wait: Duration) -> Fault {
        self.count(limit);
        let complaint = format!("more than limits.{} allows", limit.as_str());
        Fault::new(Code::RateLimited, complaint).retry_in(wait)
    }

    fn count(&self, limit: Limit) {
        if let Some(nth) = Limit::ALL.iter().position(|known| *known == limit) {
            self.refused[nth].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whoever has an address has all those near it: of IPv6 a /64, which is the least that a customer gets (RFC 6177 §2).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(bits.into())
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut settings::Limits)) -> Arc<Limits> {
        let mut raw = settings::Limits::default();
        change(&mut raw);
        Limits::new(&LimitsConfig::convert(&raw).unwrap())
    }

    fn user(name: &str) -> Principal {
        Principal { user: Some(name.into()), ..Principal::anonymous() }
    }

    #[test]
    fn what_is_taken_comes_back_and_nobody_pays_for_others() {
        let limits = limits(|raw| (raw.requests_per_key, raw.burst) = (1, "3s".into()));
        let (ann, bob) = (user("ann"), user("bob"));
        for _ in 0..3 {
            limits.request(&ann).unwrap();
        }
        let fault = limits.request(&ann).unwrap_err();
        assert_eq!((fault.code, fault.to_json()["retry_after"].as_u64()), (Code::RateLimited, Some(1)));
        limits.request(&bob).unwrap();
        assert!(limits.refused().any(|refused| refused == ("requests_per_key", 1)));
    }

    #[test]
    fn nothing_is_limited_by_0() {
        let limits = limits(|raw| {
            *raw = settings::Limits {
                commands_per_socket: 0,
                commands_per_user: 0,
                handshakes_per_address: 0,
                requests_per_key: 0,
                events_per_key: 0,
                sockets_per_user: 0,
                burst: "1s".into(),
            }
        });
        let ann = user("ann");
        let seats: Vec<Seat> = (0..5_000).map(|_| limits.seat(&ann).unwrap()).collect();
        for _ in 0..20_000 {
            limits.command(&seats[0]).unwrap();
            limits.handshake(Some([127, 0, 0, 1].into())).unwrap();
            limits.request(&ann).unwrap();
            limits.events(&ann, 1_000).unwrap();
        }
    }

    #[test]
    fn events_are_counted_one_by_one_and_more_than_there_can_be_is_never_possible() {
        let limits = limits(|raw| (raw.events_per_key, raw.burst) = (5, "2s".into()));
        let ann = user("ann");
        assert_eq!(limits.events(&ann, 11).unwrap_err().code, Code::TooMany);
        limits.events(&ann, 8).unwrap();
        assert_eq!(limits.events(&ann, 8).unwrap_err().code, Code::RateLimited);
        limits.events(&ann, 0).unwrap();
    }

    #[test]
    fn addresses_of_one_network_share_a_bucket() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn a_user_has_so_many_sockets_and_one_allowance_for_all_of_them() {
        let limits = limits(|raw| {
            (raw.sockets_per_user, raw.commands_per_user, raw.commands_per_socket) = (2, 2, 1);
            raw.burst = "1s".into();
        });
        let ann = user("ann");
        let (one, two) = (limits.seat(&ann).unwrap(), limits.seat(&ann).unwrap());
        assert_eq!(limits.seat(&ann).err().unwrap().code, Code::TooManySockets);
        limits.command(&one).unwrap();
        assert_eq!(limits.command(&one).unwrap_err().code, Code::RateLimited, "its own");
        limits.command(&two).unwrap();
        drop(one);
        let three = limits.seat(&ann).unwrap();
        assert_eq!(limits.command(&three).unwrap_err().code, Code::RateLimited, "the user's");
        let refused: Vec<_> = limits.refused().filter(|(_, count)| *count > 0).collect();
        let expected = [("commands_per_socket", 1), ("commands_per_user", 1), ("sockets_per_user", 1)];
        assert_eq!(refused, expected);
        for _ in 0..10 {
            limits.seat(&Principal::anonymous()).unwrap();
        }
    }
}
