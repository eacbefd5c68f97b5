//! An application whose clients notice nothing when its process is killed: `restore PORT FILE`.
//!
//! It remembers, in one file of lines, who may come back, their rooms, and what was said. One task, the dispatcher, owns
//! all of it and does one thing after the other: it writes a line, then sends what the line tells, numbered. So
//! whatever has a number up to the last line was sent, and what a peer lacks is what comes after the number it shows.
//!
//! `join` {room} and `say` [room, text] are acked; `said` [number, text] goes to the room.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};

use engine::{Many, Recovery, RecoveryId, RestoreRequest, Restored, Server, Sid, Socket};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// What the dispatcher is asked to do.
enum Operation {
    Join { socket: Socket, room: String, done: oneshot::Sender<()> },
    Say { room: String, text: String, done: oneshot::Sender<()> },
    Forget { id: RecoveryId },
    Restore { request: RestoreRequest },
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
enum Line {
    /// Its number is that of the `Said` lines up to it.
    Said { room: String, text: String },
    /// A socket, by its secret, is in a room from here on.
    Joined { secret: String, sid: String, room: String },
    /// It will not come back. (A real application also forgets those that have stayed away for too long.)
    Left { secret: String },
}

/// A socket that may come back.
struct Member {
    sid: Sid,
    /// Rooms, and the number of the last thing said before it joined.
    rooms: HashMap<String, u64>,
}

/// All that is remembered.
struct Memory {
    file: File,
    said: Vec<(String, String)>,
    members: HashMap<String, Member>,
}

impl Memory {
    fn open(path: &str) -> std::io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        let mut memory = Self { file: file.try_clone()?, said: Vec::new(), members: HashMap::new() };
        // A line that was cut off when the process was killed told nobody anything.
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        for line in lines.map_while(|line| serde_json::from_str(&line).ok()) {
            memory.fold(line);
        }
        Ok(memory)
    }

    fn write(&mut self, line: Line) -> std::io::Result<()> {
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        self.fold(line);
        Ok(())
    }

    fn fold(&mut self, line: Line) {
        let newest = self.newest();
        match line {
            Line::Said { room, text } => self.said.push((room, text)),
            Line::Joined { secret, sid, room } => {
                let Some(sid) = Sid::parse(&sid) else { return };
                let member =
                    self.members.entry(secret).or_insert_with(|| Member { sid, rooms: HashMap::new() });
                member.rooms.entry(room).or_insert(newest);
            }
            Line::Left { secret } => drop(self.members.remove(&secret)),
        }
    }

    /// The number of what was said last.
    fn newest(&self) -> u64 {
        self.said.len() as u64
    }

    /// What was said in its rooms while it was in them, after the number that it shows.
    fn missed<'a>(&'a self, member: &'a Member, after: u64) -> impl Iterator<Item = (u64, &'a str)> {
        let numbered = (1..).zip(&self.said);
        numbered.filter_map(move |(number, (room, text))| {
            let joined = member.rooms.get(room)?;
            (number > after.max(*joined)).then_some((number, text.as_str()))
        })
    }
}

/// Does one operation after the other, for ever.
async fn dispatch(
    server: Server,
    mut memory: Memory,
    mut operations: mpsc::Receiver<Operation>,
) -> std::io::Result<()> {
    while let Some(operation) = operations.recv().await {
        match operation {
            Operation::Say { room, text, done } => {
                memory.write(Line::Said { room: room.clone(), text: text.clone() })?;
                let number = memory.newest();
                let said = Many((number, text));
                // Fails only when the server has stopped.
                let _ = server.to(room).order(number).emit_args_waiting("said", &said).await;
                let _ = done.send(());
            }
            Operation::Join { socket, room, done } => {
                if let Some(id) = socket.recovery_id() {
                    let (secret, sid) = (id.expose(), socket.id().to_string());
                    memory.write(Line::Joined { secret, sid, room: room.clone() })?;
                }
                // Waits until everybody can find it there: the next `Say` may be for this room.
                socket.join_waiting(room).await;
                let _ = done.send(());
            }
            Operation::Forget { id } => memory.write(Line::Left { secret: id.expose() })?,
            Operation::Restore { request } => {
                let Some(member) = memory.members.get(&request.recovery_id().expose()) else {
                    request.refuse();
                    continue;
                };
                let missed: Result<Vec<_>, _> = memory
                    .missed(member, request.order().unwrap_or(0))
                    .map(|(number, text)| request.missed(number, "said", &Many((number, text))))
                    .collect();
                let mut restored = Restored::new(member.sid, memory.newest());
                restored.rooms = member.rooms.keys().cloned().collect();
                restored.missed = missed.unwrap_or_default();
                // If the peer has gone again it will ask again.
                let _ = request.restore(restored).await;
            }
        }
    }
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: restore PORT FILE")?.parse()?;
    let memory = Memory::open(&std::env::args().nth(2).ok_or("usage: restore PORT FILE")?)?;
    // More is not taken: handlers wait, and who asks to be restored connects as new.
    let (to, operations) = mpsc::channel::<Operation>(1_000);
    let (joins, says, leaves) = (to.clone(), to.clone(), to.clone());
    let server = Server::builder()
        .shards(2)
        .recovery(Recovery::default())
        .restorer(move |request| {
            let _ = to.try_send(Operation::Restore { request });
        })
        .namespace("/", |ns| {
            ns.on("join", move |socket, room: String| {
                let joins = joins.clone();
                async move {
                    let (done, is_done) = oneshot::channel();
                    let _ = joins.send(Operation::Join { socket, room, done }).await;
                    is_done.await.is_ok()
                }
            });
            ns.on("say", move |_, (room, text): (String, String)| {
                let says = says.clone();
                async move {
                    let (done, is_done) = oneshot::channel();
                    let _ = says.send(Operation::Say { room, text, done }).await;
                    is_done.await.is_ok()
                }
            });
            ns.on_disconnect(move |socket, reason, _| {
                let leaves = leaves.clone();
                async move {
                    if let Some(id) = socket.recovery_id()
                        && !socket.may_come_back(reason)
                    {
                        let _ = leaves.send(Operation::Forget { id }).await;
                    }
                }
            });
        })
        .build()?;
    server.listen(([127, 0, 0, 1], port).into()).await?;
    #[allow(clippy::print_stdout)] // Whoever started this waits for the line.
    {
        println!("ready");
    }
    dispatch(server, memory, operations).await?;
    Ok(())
}
