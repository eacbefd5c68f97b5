//! Owns what sockets of one user share: how many there are, and the bucket of their commands.
//! Does not know sockets. Invariant: a seat is given back when it is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::Quota;

use super::Limit;
use super::buckets::Bucket;

/// Users of whom something is kept. When there are more, those who are not here are forgotten early.
const USERS_MAX: usize = 100_000;

/// Everybody who has sockets, or had some a moment ago.
pub(super) struct Seats {
    users: Mutex<HashMap<Box<str>, Arc<User>>>,
    sockets_max: Option<usize>,
    commands: Option<Quota>,
    /// Time in which an empty bucket fills.
    refill: Duration,
}

struct User {
    sockets: AtomicUsize,
    commands: Option<Bucket>,
    /// When the last socket but none went.
    left_at: Mutex<Instant>,
}

/// A socket's place.
pub(crate) struct Seat {
    own: Option<Bucket>,
    user: Option<Arc<User>>,
}

impl Seats {
    pub(super) fn new(sockets_max: Option<usize>, commands: Option<Quota>, refill: Duration) -> Arc<Self> {
        Arc::new(Self { users: Mutex::default(), sockets_max, commands, refill })
    }

    /// A seat for a socket of this user; those of nobody in particular are not counted.
    ///
    /// # Errors
    /// How many sockets a user may have, if there are as many.
    pub(super) fn take(&self, user: Option<&str>, own: Option<Bucket>) -> Result<Seat, usize> {
        let (Some(name), true) = (user, self.sockets_max.is_some() || self.commands.is_some()) else {
            return Ok(Seat { own, user: None });
        };
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let user = match users.get(name) {
            Some(user) => user.clone(),
            None => {
                if users.len() >= USERS_MAX {
                    users.retain(|_, user| user.sockets.load(Ordering::Relaxed) > 0);
                }
                let user = Arc::new(User {
                    sockets: AtomicUsize::new(0),
                    commands: self.commands.map(Bucket::new),
                    left_at: Mutex::new(Instant::now()),
                });
                users.insert(name.into(), user.clone());
                user
            }
        };
        // Within the lock, so that two who come at once do not both take the last seat.
        if let Some(max) = self.sockets_max
            && user.sockets.load(Ordering::Relaxed) >= max
        {
            return Err(max);
        }
        user.sockets.fetch_add(1, Ordering::Relaxed);
        drop(users);
        Ok(Seat { own, user: Some(user) })
    }

    /// Forgets users who have been away for so long that their bucket is full.
    pub(super) fn sweep(&self) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, user| user.sockets.load(Ordering::Relaxed) > 0 || user.away() < self.refill);
        users.shrink_to_fit();
    }
}

impl User {
    fn away(&self) -> Duration {
        self.left_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Seat {
    /// Takes a command from the socket's bucket, then from the user's.
    ///
    /// # Errors
    /// Which of them has none, and how long until it has.
    pub(super) fn take_command(&self) -> Result<(), (Limit, Duration)> {
        if let Some(own) = &self.own {
            own.take().map_err(|wait| (Limit::CommandsPerSocket, wait))?;
        }
        if let Some(shared) = self.user.as_ref().and_then(|user| user.commands.as_ref()) {
            shared.take().map_err(|wait| (Limit::CommandsPerUser, wait))?;
        }
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(user) = &self.user {
            *user.left_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            user.sockets.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_forgotten_once_they_are_away_and_their_bucket_is_full() {
        let seats = Seats::new(Some(1), None, Duration::ZERO);
        let seat = seats.take(Some("ann"), None).unwrap();
        seats.sweep();
        assert_eq!(seats.take(Some("ann"), None).err(), Some(1), "she is here");
        drop(seat);
        seats.sweep();
        assert!(seats.users.lock().unwrap().is_empty());

        let slow = Seats::new(Some(1), None, Duration::from_secs(3_600));
        drop(slow.take(Some("ann"), None).unwrap());
        slow.sweep();
        assert_eq!(slow.users.lock().unwrap().len(), 1);
    }
}
