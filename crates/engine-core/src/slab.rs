//! Owns slots that are reused, and keys that notice when their slot has been.
//! Knows nothing of what is stored. Invariant: a key answers only for the value it was given for.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// Names one value in a table of slots: the slot, and which of the slot's successive tenants is meant.
pub struct Key<Tag> {
    slot: u32,
    generation: u32,
    of: PhantomData<fn() -> Tag>,
}

impl<T> Key<T> {
    /// A key that never names anything.
    pub const NONE: Key<T> = Key { slot: u32::MAX, generation: 0, of: PhantomData };

    /// Position in the slab: small, dense, reused after the value is gone. Good for side tables.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    /// Both halves as one integer, for drivers that can carry only a number.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.generation as u64) << 32) | self.slot as u64
    }

    /// The key that [`Key::to_bits`] turned into `bits`.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, generation: (bits >> 32) as u32, of: PhantomData }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot && self.generation == other.generation
    }
}

impl<T> Eq for Key<T> {}

impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.slot, self.generation).cmp(&(other.slot, other.generation))
    }
}

impl<T> Hash for Key<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to_bits().hash(state);
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}v{}", self.slot, self.generation)
    }
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values in reusable slots, named by keys of a public `Tag`, so that the stored type can stay private.
///
/// A removed value's slot goes to the next insert, under a new generation.
pub(crate) struct Slab<T, Tag> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    of: PhantomData<fn() -> Tag>,
}

impl<T, Tag> Slab<T, Tag> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), of: PhantomData }
    }

    /// How many values are held.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Stores the value that `make` builds for its own key.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key<Tag>) -> T) -> Key<Tag> {
        let slot = self.free.pop().unwrap_or_else(|| {
            // Doubling a table of 100,000 sessions would hold half of it empty: grow by an eighth.
            if self.slots.len() == self.slots.capacity() {
                self.slots.reserve_exact((self.slots.len() / 8).max(16));
            }
            self.slots.push(Slot { generation: 0, value: None });
            u32::try_from(self.slots.len() - 1).expect("invariant: fewer than 2^32 slots fit in memory")
        });
        let entry = &mut self.slots[slot as usize];
        let key = Key { slot, generation: entry.generation, of: PhantomData };
        entry.value = Some(make(key));
        key
    }

    pub(crate) fn get(&self, key: Key<Tag>) -> Option<&T> {
        let slot = self.slots.get(key.slot())?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, key: Key<Tag>) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.slot())?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    /// The current tenant of a slot, whoever it is.
    pub(crate) fn at(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.value.as_ref()
    }

    /// The current tenant of a slot, whoever it is.
    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.value.as_mut()
    }

    /// The key of a slot's current tenant.
    pub(crate) fn key_at(&self, slot: u32) -> Option<Key<Tag>> {
        let entry = self.slots.get(slot as usize)?;
        entry.value.as_ref().map(|_| Key { slot, generation: entry.generation, of: PhantomData })
    }

    pub(crate) fn remove(&mut self, key: Key<Tag>) -> Option<T> {
        let slot = self.slots.get_mut(key.slot())?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(value)
    }

    /// Every value with its key, in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key<Tag>, &T)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| {
            let key = Key { slot: slot as u32, generation: entry.generation, of: PhantomData };
            entry.value.as_ref().map(|value| (key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_answer_for_the_next_tenant_of_its_slot() {
        let mut slab = Slab::<_, ()>::new();
        let first = slab.insert_with(|_| "first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert_with(|_| "second");
        assert_eq!(first.slot(), second.slot());
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_key_survives_the_trip_through_an_integer() {
        let mut slab = Slab::<_, ()>::new();
        let old = slab.insert_with(|_| 1);
        slab.remove(old);
        let key = slab.insert_with(|_| 2);
        assert_eq!(Key::from_bits(key.to_bits()), key);
        assert_ne!(key, old);
    }
}
