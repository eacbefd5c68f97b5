//! Owns what must hold in the end: every watcher of a room has each event of its log once, in the order of `seq`, from
//! where it joined to the last. Does not know processes or connections. Positions come from the answers to publishers and
//! from what watchers saw.

use std::collections::{BTreeMap, VecDeque};

/// A place in a room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Which log the room has.
    pub(crate) epoch: u64,
    /// Which event of it.
    pub(crate) seq: u64,
}

/// Something that should not have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A watcher did not get an event.
    Lost,
    /// A watcher got an event again, or an older one after a newer.
    Repeated,
    /// What a watcher got is not what the publisher was told to be at that place.
    Wrong,
    /// One publication is in the log more than once.
    Doubled,
    /// The room began a new log although nothing was forgotten.
    NewEpoch,
    /// A watcher was told that it cannot have what it missed.
    Refused,
}

/// Everything that was published and seen.
#[derive(Default)]
pub(crate) struct Ledger {
    rooms: BTreeMap<Box<str>, Room>,
    /// By watcher and room.
    progress: BTreeMap<(u32, Box<str>), Place>,
    faults: BTreeMap<Fault, u64>,
    /// The first few, for people.
    stories: Vec<String>,
    /// What befell each watcher's connection lately, and has been told in no story.
    trails: BTreeMap<u32, VecDeque<String>>,
    pub(crate) sights: u64,
}

/// Faults that are told in full.
const STORIES_MAX: usize = 20;

/// What is remembered of a watcher's connections: some three comings and goings.
const TRAIL_MAX: usize = 10;

#[derive(Default)]
struct Room {
    epoch: Option<u64>,
    /// Which publication is at each place: answered, or seen first.
    events: BTreeMap<u64, u64>,
    /// Where each publication is.
    places: BTreeMap<u64, u64>,
    /// The newest that was answered or seen.
    newest: u64,
}

impl Ledger {
    /// A publisher was told where its event is.
    pub(crate) fn answered(&mut self, room: &str, place: Place, publication: u64) {
        if let Some((fault, story)) = self.room(room).take(place, publication) {
            self.complain(fault, format!("publisher, {room} {}: {story}", place.seq));
        }
    }

    /// A watcher joined a room, and has everything up to there. Only the first time counts.
    pub(crate) fn joined(&mut self, watcher: u32, room: &str, place: Place) {
        self.progress.entry((watcher, room.into())).or_insert(place);
    }

    /// Something befell a watcher's connection: told with the next fault of it.
    pub(crate) fn noted(&mut self, watcher: u32, note: String) {
        let trail = self.trails.entry(watcher).or_default();
        if trail.len() == TRAIL_MAX {
            trail.pop_front();
        }
        trail.push_back(note);
    }

    /// A watcher got an event.
    pub(crate) fn saw(&mut self, watcher: u32, room: &str, place: Place, publication: u64) {
        self.sights += 1;
        if let Some((fault, story)) = self.room(room).take(place, publication) {
            self.complain(fault, format!("watcher {watcher}, {room} {}: {story}", place.seq));
        }
        let key = (watcher, room.into());
        let Some(before) = self.progress.insert(key.clone(), place) else { return };
        if place.epoch != before.epoch {
            return self.complain(
                Fault::NewEpoch,
                format!("watcher {watcher}, {room}: epoch {} after {}", place.epoch, before.epoch),
            );
        }
        if place.seq <= before.seq {
            // What it has stays what it had: one repeat is one fault.
            self.progress.insert(key, before);
            let trail = self.trail(watcher);
            return self.complain(
                Fault::Repeated,
                format!("watcher {watcher}, {room}: {} after {}{trail}", place.seq, before.seq),
            );
        }
        for seq in before.seq + 1..place.seq {
            let trail = self.trail(watcher);
            let story = format!("watcher {watcher}, {room}: {seq}, before {}{trail}", place.seq);
            self.complain(Fault::Lost, story);
        }
    }

    /// A watcher was refused what it missed.
    pub(crate) fn refused(&mut self, watcher: u32, room: &str) {
        self.complain(Fault::Refused, format!("watcher {watcher}, {room}"));
    }

    /// How many events watchers have not got yet of those that are known.
    pub(crate) fn awaited(&self) -> u64 {
        self.behind().map(|(.., missing)| missing).sum()
    }

    /// Closes the books: what has not come by now is lost. Answers all faults, counted, and the first of them in words.
    pub(crate) fn close(mut self) -> (BTreeMap<Fault, u64>, Vec<String>) {
        let behind: Vec<(u32, Box<str>, u64, u64)> = self
            .behind()
            .map(|(watcher, room, missing)| (watcher, room.into(), missing, self.newest(room)))
            .collect();
        for (watcher, room, missing, newest) in behind {
            for seq in newest - missing + 1..=newest {
                self.complain(Fault::Lost, format!("watcher {watcher}, {room}: {seq}, to the end"));
            }
        }
        (self.faults, self.stories)
    }

    fn behind(&self) -> impl Iterator<Item = (u32, &str, u64)> {
        self.progress.iter().filter_map(|((watcher, room), has)| {
            let missing = self.newest(room).saturating_sub(has.seq);
            (missing > 0).then_some((*watcher, &**room, missing))
        })
    }

    fn newest(&self, room: &str) -> u64 {
        self.rooms.get(room).map_or(0, |room| room.newest)
    }

    fn room(&mut self, room: &str) -> &mut Room {
        self.rooms.entry(room.into()).or_default()
    }

    /// What befell a watcher since the last story of it.
    fn trail(&mut self, watcher: u32) -> String {
        let trail = self.trails.get_mut(&watcher).map(std::mem::take).unwrap_or_default();
        trail.iter().map(|note| format!("; {note}")).collect()
    }

    fn complain(&mut self, fault: Fault, story: String) {
        *self.faults.entry(fault).or_default() += 1;
        if self.stories.len() < STORIES_MAX {
            self.stories.push(format!("{fault:?}: {story}"));
        }
    }
}

impl Room {
    /// Notes which publication is at a place; what is wrong with that, if anything is.
    fn take(&mut self, place: Place, publication: u64) -> Option<(Fault, String)> {
        if *self.epoch.get_or_insert(place.epoch) != place.epoch {
            return Some((Fault::NewEpoch, format!("epoch {}", place.epoch)));
        }
        self.newest = self.newest.max(place.seq);
        let known = *self.events.entry(place.seq).or_insert(publication);
        if known != publication {
            return Some((Fault::Wrong, format!("{publication}, not {known}")));
        }
        let first = *self.places.entry(publication).or_insert(place.seq);
        (first != place.seq).then(|| (Fault::Doubled, format!("{publication} is at {first}, too")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "room";

    fn at(seq: u64) -> Place {
        Place { epoch: 7, seq }
    }

    /// A watcher that joined at 0, a log of five, and what it saw of it: pairs of place and publication.
    fn faults(seen: &[(u64, u64)]) -> Vec<(Fault, u64)> {
        let mut ledger = Ledger::default();
        ledger.joined(1, ROOM, at(0));
        for seq in 1..=5 {
            ledger.answered(ROOM, at(seq), 100 + seq);
        }
        for (seq, publication) in seen {
            ledger.saw(1, ROOM, at(*seq), *publication);
        }
        let (faults, stories) = ledger.close();
        assert_eq!(stories.len() as u64, faults.values().sum::<u64>(), "{stories:?}");
        faults.into_iter().collect()
    }

    #[test]
    fn everything_once_and_in_order_is_well() {
        assert_eq!(faults(&[(1, 101), (2, 102), (3, 103), (4, 104), (5, 105)]), []);
    }

    #[test]
    fn a_lost_event_is_noticed_wherever_it_was() {
        assert_eq!(faults(&[(2, 102), (3, 103), (4, 104), (5, 105)]), [(Fault::Lost, 1)]);
        assert_eq!(faults(&[(1, 101), (2, 102), (5, 105)]), [(Fault::Lost, 2)]);
        assert_eq!(faults(&[(1, 101), (2, 102), (3, 103), (4, 104)]), [(Fault::Lost, 1)]);
        assert_eq!(faults(&[]), [(Fault::Lost, 5)]);
    }

    #[test]
    fn repeats_and_older_events_are_noticed() {
        assert_eq!(
            faults(&[(1, 101), (2, 102), (2, 102), (3, 103), (4, 104), (5, 105)]),
            [(Fault::Repeated, 1)]
        );
        assert_eq!(
            faults(&[(1, 101), (3, 103), (2, 102), (4, 104), (5, 105)]),
            [(Fault::Lost, 1), (Fault::Repeated, 1)]
        );
    }

    #[test]
    fn what_is_not_what_was_published_is_noticed() {
        assert_eq!(faults(&[(1, 101), (2, 999), (3, 103), (4, 104), (5, 105)]), [(Fault::Wrong, 1)]);
        assert_eq!(
            faults(&[(1, 101), (2, 102), (3, 103), (4, 104), (5, 105), (6, 101)]),
            [(Fault::Doubled, 1)]
        );
    }

    #[test]
    fn what_was_never_answered_counts_once_somebody_saw_it() {
        let mut ledger = Ledger::default();
        ledger.joined(1, ROOM, at(0));
        ledger.joined(2, ROOM, at(0));
        ledger.saw(1, ROOM, at(1), 5);
        assert_eq!(ledger.awaited(), 1);
        assert_eq!(ledger.close().0, BTreeMap::from([(Fault::Lost, 1)]));
    }

    #[test]
    fn a_watcher_has_what_was_before_it_joined_and_joining_again_changes_nothing() {
        let mut ledger = Ledger::default();
        for seq in 1..=4 {
            ledger.answered(ROOM, at(seq), seq);
        }
        ledger.joined(1, ROOM, at(2));
        ledger.joined(1, ROOM, at(4));
        ledger.saw(1, ROOM, at(3), 3);
        assert_eq!(ledger.awaited(), 1);
        ledger.saw(1, ROOM, at(4), 4);
        assert_eq!(ledger.close().0, BTreeMap::new());
    }

    #[test]
    fn a_fault_is_told_with_what_befell_the_watcher_before() {
        let mut ledger = Ledger::default();
        ledger.joined(1, ROOM, at(0));
        for nth in 0..=TRAIL_MAX {
            ledger.noted(1, format!("note {nth}"));
        }
        ledger.noted(2, "another's".to_owned());
        for seq in [1, 2, 1, 2] {
            ledger.saw(1, ROOM, at(seq), seq);
        }
        let (_, stories) = ledger.close();
        assert!(
            stories[0].ends_with(
                "1 after 2; note 1; note 2; note 3; note 4; note 5; note 6; note 7; note 8; note 9; note 10"
            ),
            "{stories:?}"
        );
        assert!(stories[1].ends_with("2 after 2"), "told once: {stories:?}");
    }

    #[test]
    fn new_epochs_and_refusals_are_told() {
        let mut ledger = Ledger::default();
        ledger.joined(1, ROOM, at(0));
        ledger.saw(1, ROOM, at(1), 1);
        ledger.saw(1, ROOM, Place { epoch: 8, seq: 1 }, 2);
        ledger.refused(1, ROOM);
        let faults = ledger.close().0;
        assert!(faults.contains_key(&Fault::NewEpoch) && faults[&Fault::Refused] == 1, "{faults:?}");
    }
}
