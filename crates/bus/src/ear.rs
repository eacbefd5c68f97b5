//! Owns the connection on which this node hears: makes it, subscribes what is wanted, and makes another when it is lost.
//! Does not know what is heard. Invariant: there is one at a time, and before its gate is opened everything that is wanted
//! is subscribed on it, and announced.
//!
//! The library takes each confirmation for the answer to the oldest command that waits. A server that unsubscribes by
//! itself, as one of a Cluster does that gives a slot away, would confuse it: the connection is given up then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use store_redis::Failure;
use store_redis::link::send_all;
use tokio::sync::oneshot;

use crate::channel::Channel;
use crate::fault::BusFault;
use crate::letter::Letter;
use crate::pause::pause;
use crate::shared::Shared;
use crate::wishes::Round;

/// Channels that are subscribed in one write, and told of in one letter: some 100 KB.
const ROUND_MAX: usize = 512;

/// After an announcement that could not be sent.
const ANNOUNCEMENT_PAUSE: Duration = Duration::from_millis(500);

/// A connection that lives as long is not one of those that break at once.
const STEADY: Duration = Duration::from_secs(5);

/// Runs for as long as the bus does. `first` is told how the first attempt went; if it failed, it was the last.
pub(crate) async fn run(shared: Arc<Shared>, first: oneshot::Sender<Result<(), Failure>>) {
    let mut first = Some(first);
    let mut failures = 0;
    // It ends before it is told to when somebody else has this node's number.
    while !shared.inbox.is_ended() {
        let generation = shared.inbox.generation();
        let begun = Instant::now();
        let why = match connect(&shared, generation).await {
            Ok(mut connection) => {
                shared.status.connect();
                shared.inbox.open_gate();
                shared.canary.notify_one();
                shared.look.notify_one();
                if let Some(first) = first.take() {
                    // Whoever opened the bus may have given up; then the task is about to end.
                    let _ = first.send(Ok(()));
                }
                let why = serve(&shared, &mut connection, generation).await;
                shared.tally.cuts.add(1);
                why
            }
            Err(failure) => {
                if let Some(first) = first.take() {
                    let _ = first.send(Err(failure));
                    return;
                }
                failure.why()
            }
        };
        shared.lose(&why);
        failures = if begun.elapsed() >= STEADY { 0 } else { failures + 1 };
        tokio::time::sleep(pause(failures)).await;
    }
}

/// Makes a connection on which everything is subscribed.
async fn connect(shared: &Arc<Shared>, generation: u64) -> Result<MultiplexedConnection, Failure> {
    let hearing = Arc::clone(shared);
    let mut connection = shared.link.listen(move |push| hearing.hear(generation, push)).await?;
    subscribe(&mut connection, &[shared.own_channel(), shared.common_channel()], &[]).await?;
    // Announcements come from now on, so nothing is missed between the look and them. None of our own channels is
    // subscribed on this connection yet.
    look(shared, &mut connection, |_| false).await?;
    while !shared.wishes.try_rise() {
        match play_rounds(shared, &mut connection).await {
            Ok(()) => {}
            Err(Stop::Cut(failure)) => return Err(failure),
            Err(Stop::Unannounced(fault)) => return Err(Failure::Refused(fault.to_string())),
        }
    }
    Ok(connection)
}

/// Fulfils wishes until the connection is lost: why it is.
async fn serve(shared: &Arc<Shared>, connection: &mut MultiplexedConnection, generation: u64) -> String {
    let work = async {
        let mut is_unannounced = false;
        loop {
            tokio::select! {
                () = shared.wishes.changed.notified() => {}
                () = tokio::time::sleep(ANNOUNCEMENT_PAUSE), if is_unannounced => {}
            }
            is_unannounced = match play_rounds(shared, connection).await {
                Ok(()) => false,
                Err(Stop::Unannounced(_)) => true,
                Err(Stop::Cut(failure)) => return failure.why(),
            };
            if shared.interest.is_stale() {
                let is_own = |channel: &Channel| shared.wishes.listens(channel) != crate::wishes::Listens::No;
                if let Err(failure) = look(shared, connection, is_own).await {
                    return failure.why();
                }
            }
        }
    };
    tokio::select! {
        why = shared.cut.wait(generation) => why,
        why = work => why,
    }
}

/// Why rounds were not played to their end.
enum Stop {
    /// The connection is of no use.
    Cut(Failure),
    /// The others cannot be told now.
    Unannounced(BusFault),
}

/// Does what is wished, until nothing is.
async fn play_rounds(shared: &Shared, connection: &mut MultiplexedConnection) -> Result<(), Stop> {
    while let Some(mut round) = shared.wishes.begin(ROUND_MAX) {
        let how = play(shared, connection, &mut round).await;
        let told = match &how {
            Ok(()) => Ok(()),
            Err(Stop::Cut(failure)) => Err(BusFault::Down(failure.why())),
            Err(Stop::Unannounced(fault)) => Err(fault.clone()),
        };
        round.end(&told);
        how?;
    }
    Ok(())
}

async fn play(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    round: &mut Round,
) -> Result<(), Stop> {
    let names = |channels: &[Channel]| -> Vec<String> {
        channels.iter().map(|channel| channel.name(&shared.prefix)).collect()
    };
    let (wanted, unwanted) = (names(&round.subscribe), names(&round.unsubscribe));
    subscribe(connection, &wanted, &unwanted).await.map_err(Stop::Cut)?;
    let untold = shared.wishes.subscribed(round);
    for channels in untold.chunks(ROUND_MAX) {
        let letter = Letter::Interest(channels.to_vec());
        let told = shared.publish_letter(shared.common_channel(), &letter).await;
        told.map_err(Stop::Unannounced)?;
        shared.wishes.announced(channels);
    }
    Ok(())
}

/// Subscribes and unsubscribes; returns when the server has confirmed it.
async fn subscribe(
    connection: &mut MultiplexedConnection,
    wanted: &[String],
    unwanted: &[String],
) -> Result<(), Failure> {
    let mut commands = Pipeline::new();
    // One channel in each command: each is answered once, whether it succeeds or not.
    for channel in unwanted {
        commands.cmd("SUNSUBSCRIBE").arg(channel);
    }
    for channel in wanted {
        commands.cmd("SSUBSCRIBE").arg(channel);
    }
    if commands.is_empty() {
        return Ok(());
    }
    for answer in send_all(connection, &commands).await? {
        answer?;
    }
    Ok(())
}

/// Looks who listens to what.
async fn look(
    shared: &Shared,
    connection: &mut MultiplexedConnection,
    is_own: impl Fn(&Channel) -> bool,
) -> Result<(), Failure> {
    let begun = shared.interest.begin_look();
    let mut commands = Pipeline::new();
    commands
        .cmd("PUBSUB")
        .arg("SHARDCHANNELS")
        .arg(format!("{}*", escape(&format!("{{{}}}:", shared.prefix))));
    let answers = send_all(connection, &commands).await?;
    let Some(Ok(Value::Array(names))) = answers.into_iter().next() else {
        return Err(Failure::Refused("who listens to what is not told".to_owned()));
    };
    let channel = |name: Value| match name {
        Value::BulkString(name) => shared.channel(&name),
        _ => None,
    };
    shared.interest.load(begun, &names.into_iter().filter_map(channel).collect(), is_own);
    Ok(())
}

/// A pattern that matches this text.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}
