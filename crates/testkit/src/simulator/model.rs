//! What must, may and must not reach each socket, told from what the application did and when.
//! Does not look into shards. Invariant: time here is a count of steps, so that "before" is never in doubt.

use std::collections::BTreeMap;

/// When something began and ended, in steps.
#[derive(Clone, Debug)]
struct Stay {
    from: u64,
    /// When every shard had heard of it.
    firm: Option<u64>,
    /// Mail sent before this must have arrived for it to be firm.
    mail: u64,
    until: Option<u64>,
}

/// One life of a socket: from its acceptance to its end, losses and returns included.
#[derive(Debug, Default)]
pub(crate) struct Life {
    rooms: BTreeMap<String, Vec<Stay>>,
    pub(crate) namespace: String,
    pub(crate) ended: Option<u64>,
    /// A peer has been told its id.
    pub(crate) was_joined: bool,
    /// What its peer has got: sender and number, in order.
    pub(crate) got: Vec<(u64, u64)>,
}

/// One event that the application sent.
#[derive(Debug)]
struct Sent {
    namespace: String,
    rooms: Vec<String>,
    except: Vec<String>,
    is_volatile: bool,
    at: u64,
    /// When the last shard had it.
    done: Option<u64>,
    mail: u64,
}

/// The room that stands for a whole namespace; no room is called that.
const EVERYONE: &str = "";

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) step: u64,
    pub(crate) lives: BTreeMap<String, Life>,
    sent: BTreeMap<(u64, u64), Sent>,
    underway: Vec<(u64, u64)>,
    settling: Vec<(String, String)>,
    next: BTreeMap<u64, u64>,
}

impl Model {
    /// Time passes, and all mail sent before `mail` has arrived.
    pub(crate) fn advance(&mut self, mail: u64) {
        self.step += 1;
        let step = self.step;
        let sent = &mut self.sent;
        self.underway.retain(|id| {
            let sent = sent.get_mut(id).expect("it was sent");
            if sent.mail <= mail {
                sent.done = Some(step);
            }
            sent.done.is_none()
        });
        let lives = &mut self.lives;
        self.settling.retain(|(sid, room)| {
            let Some(stays) = lives.get_mut(sid).and_then(|life| life.rooms.get_mut(room)) else {
                return false;
            };
            let mut waits = false;
            for stay in stays.iter_mut().filter(|stay| stay.firm.is_none()) {
                if stay.mail <= mail {
                    stay.firm = Some(step);
                } else {
                    waits = true;
                }
            }
            waits
        });
    }

    pub(crate) fn begin_life(&mut self, sid: &str, namespace: &str, mail: u64) {
        let life = Life { namespace: namespace.to_owned(), ..Life::default() };
        assert!(self.lives.insert(sid.to_owned(), life).is_none(), "{sid} was given out twice");
        self.join(sid, EVERYONE, mail);
        self.join(sid, sid, mail);
    }

    pub(crate) fn end_life(&mut self, sid: &str) {
        let step = self.step;
        if let Some(life) = self.lives.get_mut(sid) {
            life.ended.get_or_insert(step);
            for stay in life.rooms.values_mut().flatten() {
                stay.until.get_or_insert(step);
            }
        }
    }

    pub(crate) fn join(&mut self, sid: &str, room: &str, mail: u64) {
        let stay = Stay { from: self.step, firm: None, mail, until: None };
        let life = self.lives.get_mut(sid).expect("it lives");
        life.rooms.entry(room.to_owned()).or_default().push(stay);
        self.settling.push((sid.to_owned(), room.to_owned()));
    }

    pub(crate) fn leave(&mut self, sid: &str, room: &str) {
        let step = self.step;
        let stays = self.lives.get_mut(sid).and_then(|life| life.rooms.get_mut(room));
        if let Some(stay) = stays.and_then(|stays| stays.last_mut()) {
            stay.until.get_or_insert(step);
        }
    }

    pub(crate) fn rooms_of(&self, sid: &str) -> Vec<String> {
        let Some(life) = self.lives.get(sid) else { return Vec::new() };
        life.rooms
            .iter()
            .filter(|(room, stays)| {
                *room != EVERYONE && *room != sid && stays.last().is_some_and(|stay| stay.until.is_none())
            })
            .map(|(room, _)| room.clone())
            .collect()
    }

    /// The number of the next event of a sender.
    pub(crate) fn next_number(&mut self, sender: u64) -> u64 {
        let next = self.next.entry(sender).or_default();
        *next += 1;
        *next
    }

    /// An event was sent; it is under way until all mail before `mail` has arrived.
    #[expect(clippy::too_many_arguments, reason = "one line of the log, written in one place")]
    pub(crate) fn note_sent(
        &mut self,
        sender: u64,
        number: u64,
        namespace: &str,
        rooms: &[String],
        except: &[String],
        is_volatile: bool,
        mail: u64,
    ) {
        let sent = Sent {
            namespace: namespace.to_owned(),
            rooms: if rooms.is_empty() { vec![EVERYONE.to_owned()] } else { rooms.to_vec() },
            except: except.to_vec(),
            is_volatile,
            at: self.step,
            done: None,
            mail,
        };
        self.sent.insert((sender, number), sent);
        self.underway.push((sender, number));
    }

    /// A peer got an event.
    pub(crate) fn note_got(&mut self, sid: &str, sender: u64, number: u64) -> Result<(), String> {
        let step = self.step;
        let sent = self.sent.get(&(sender, number)).ok_or("nobody sent it")?;
        let life = self.lives.get_mut(sid).ok_or_else(|| format!("{sid} never was"))?;
        if let Some((_, last)) = life.got.iter().rev().find(|(other, _)| *other == sender)
            && *last >= number
        {
            return Err(format!("{sid} got {number} of {sender} after {last}: {:?}", life.got));
        }
        if !may_get(life, sent, step) {
            return Err(format!("{sid} got {number} of {sender}, which was not for it: {sent:?} {life:?}"));
        }
        life.got.push((sender, number));
        Ok(())
    }

    /// Whether each socket got what it must: all of it if its peer is connected (`alive`), else whatever came before
    /// something that it did get.
    pub(crate) fn check(&self, alive: &dyn Fn(&str) -> bool) -> Result<(), String> {
        for (sid, life) in &self.lives {
            let is_alive = alive(sid);
            let mut newest = BTreeMap::new();
            for (sender, number) in &life.got {
                newest.insert(*sender, *number);
            }
            let got: std::collections::BTreeSet<_> = life.got.iter().copied().collect();
            for (&(sender, number), sent) in &self.sent {
                let is_due = is_alive || newest.get(&sender).is_some_and(|&newest| number < newest);
                if is_due && !got.contains(&(sender, number)) && must_get(life, sent) {
                    return Err(format!(
                        "{sid} (alive {is_alive}) did not get {number} of {sender}: {sent:?}\n{life:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn must_get(life: &Life, sent: &Sent) -> bool {
    let Some(done) = sent.done else { return false };
    let stays_through = |room: &String| {
        life.rooms.get(room).into_iter().flatten().any(|stay| {
            stay.firm.is_some_and(|firm| firm <= sent.at) && stay.until.is_none_or(|until| until >= done)
        })
    };
    let meets = |room: &String| {
        life.rooms
            .get(room)
            .into_iter()
            .flatten()
            .any(|stay| stay.from <= done && stay.until.is_none_or(|until| until >= sent.at))
    };
    !sent.is_volatile
        && life.namespace == sent.namespace
        && sent.rooms.iter().any(stays_through)
        && !sent.except.iter().any(meets)
}

fn may_get(life: &Life, sent: &Sent, now: u64) -> bool {
    let done = sent.done.unwrap_or(now);
    let meets = |room: &String| {
        life.rooms
            .get(room)
            .into_iter()
            .flatten()
            .any(|stay| stay.from <= done && stay.until.is_none_or(|until| until >= sent.at))
    };
    let stays_through = |room: &String| {
        life.rooms
            .get(room)
            .into_iter()
            .flatten()
            .any(|stay| stay.from < sent.at && stay.until.is_none_or(|until| until > done))
    };
    life.namespace == sent.namespace && sent.rooms.iter().any(meets) && !sent.except.iter().any(stays_through)
}
