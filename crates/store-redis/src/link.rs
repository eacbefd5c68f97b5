//! Owns the connection to whichever server has our keys: finds it, keeps it, and lets it go when it has failed or is the
//! wrong one. Does not know what is sent. Invariant: nothing is sent twice by it; whoever asks decides that.
//!
//! All keys of a deployment have one hash tag, so one server has them all at any time, in a Cluster too: one connection
//! is enough, on which many questions are under way at once. Whoever subscribes has one more, see [`Link::listen`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion,
    PushInfo, RedisConnectionInfo, TlsCertificates, Value,
};
use tokio::sync::Mutex;

use crate::address::{Address, Credentials, Node, Way};
use crate::fault::{Failure, OpenFault};
use crate::keys::Keys;
use crate::script::Script;
use crate::terms::Terms;

/// After one attempt that failed nobody tries again for so long: callers must not queue up behind a dead server.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a Cluster may send us on: once is normal, more often while slots move.
const REDIRECTS_MAX: usize = 5;

/// The connection to the server that has a deployment's keys, when there is one.
pub struct Link {
    terms: Terms,
    /// A key of ours: whoever has it has all.
    key: String,
    state: Mutex<State>,
}

/// What is told of what a server sends unasked.
pub(crate) type Hear = Arc<dyn Fn(PushInfo) + Send + Sync>;

#[derive(Default)]
struct State {
    held: Option<Held>,
    made: u64,
    failed: Option<(Instant, Failure)>,
}

/// A connection, and which of those that were made.
#[derive(Clone)]
pub struct Held {
    connection: MultiplexedConnection,
    number: u64,
}

impl Link {
    pub(crate) fn new(terms: Terms, key: String) -> Self {
        Self { terms, key, state: Mutex::default() }
    }

    /// For the keys of this prefix. Connects when it is used.
    ///
    /// # Errors
    /// The caller's fault: a prefix that makes no sense.
    pub fn of(terms: Terms, prefix: &str) -> Result<Self, OpenFault> {
        let keys = Keys::new(prefix).map_err(OpenFault::Address)?;
        Ok(Self::new(terms, keys.of("store")))
    }

    /// The connection; makes it if there is none.
    ///
    /// # Errors
    /// [`Failure::Refused`]: it cannot be made now.
    pub async fn hold(&self) -> Result<Held, Failure> {
        let mut state = self.state.lock().await;
        if let Some(held) = &state.held {
            return Ok(held.clone());
        }
        if let Some((at, failure)) = &state.failed
            && at.elapsed() < PAUSE
        {
            return Err(failure.clone());
        }
        match self.find_in_time(None).await {
            Ok(connection) => {
                state.made += 1;
                let held = Held { connection, number: state.made };
                (state.held, state.failed) = (Some(held.clone()), None);
                Ok(held)
            }
            Err(failure) => {
                state.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Makes a connection beside the one that is shared, in RESP3: what the server sends unasked goes to `hear`, which must
    /// not wait. Whoever has it finds out by itself when it is of no use any more.
    ///
    /// # Errors
    /// [`Failure::Refused`]: it cannot be made now.
    pub async fn listen(
        &self,
        hear: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, Failure> {
        self.find_in_time(Some(Arc::new(hear))).await
    }

    /// Sends one command, and lets the connection go if that shows it to be of no use.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(&self, held: &Held, command: &Cmd) -> Result<Value, Failure> {
        let answer = held.connection.clone().send_packed_command(command).await;
        let answer = read_answer(answer);
        if let Err(failure) = &answer {
            self.judge(held, failure).await;
        }
        answer
    }

    /// Sends several commands at once: their answers, in order.
    ///
    /// # Errors
    /// [`Failure`], of all or of each. One that fails does not keep the others from being done.
    pub async fn send_all(
        &self,
        held: &Held,
        commands: &Pipeline,
    ) -> Result<Vec<Result<Value, Failure>>, Failure> {
        let answers = send_all(&mut held.connection.clone(), commands).await;
        let answers = match answers {
            Ok(answers) => answers,
            Err(failure) => {
                self.judge(held, &failure).await;
                return Err(failure);
            }
        };
        if let Some(Err(failure)) = answers.iter().find(|answer| answer.is_err()) {
            self.judge(held, failure).await;
        }
        Ok(answers)
    }

    /// Calls a script; its only key is `{prefix}:store`, from which it makes all others.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn call<'a>(
        &self,
        held: &Held,
        script: &Script,
        arguments: impl IntoIterator<Item = &'a [u8]> + Clone,
    ) -> Result<Value, Failure> {
        match self.send(held, &script.by_digest(&self.key, arguments.clone())).await {
            Err(Failure::NoScript) => self.send(held, &script.by_text(&self.key, arguments)).await,
            answer => answer,
        }
    }

    async fn judge(&self, held: &Held, failure: &Failure) {
        match failure {
            Failure::Lost(_) | Failure::Refused(_) | Failure::Moved { .. } => self.let_go(held).await,
            Failure::Full(_) | Failure::Damaged(_) | Failure::NoScript => {}
        }
    }

    /// Lets a connection go that is of no use: the next one who asks gets another.
    pub async fn let_go(&self, held: &Held) {
        let mut state = self.state.lock().await;
        // Somebody else may have done so, and made another.
        if state.held.as_ref().is_some_and(|current| current.number == held.number) {
            state.held = None;
        }
    }

    pub(crate) async fn find_in_time(&self, hear: Option<Hear>) -> Result<MultiplexedConnection, Failure> {
        let found = match tokio::time::timeout(self.terms.connect_timeout, self.find(hear)).await {
            Ok(found) => found,
            Err(_) => Err(Failure::Refused(format!("no connection within {:?}", self.terms.connect_timeout))),
        };
        // Nothing was asked yet, so nothing is lost and nothing was done.
        found.map_err(|failure| Failure::Refused(failure.why()))
    }

    async fn find(&self, hear: Option<Hear>) -> Result<MultiplexedConnection, Failure> {
        let Terms { address, .. } = &self.terms;
        let mut last = Failure::Refused("there is no server to ask".to_owned());
        for node in &address.nodes {
            let hear = hear.clone();
            let found = match &address.way {
                Way::Single => self.connect(node, &address.credentials, address.database, hear).await,
                Way::Sentinel { master, credentials } => {
                    self.find_master(node, master, credentials, hear).await
                }
                Way::Cluster => self.find_owner(node, hear).await,
            };
            match found {
                Ok(connection) => return Ok(connection),
                Err(failure) => last = Failure::Refused(format!("{node}: {}", failure.why())),
            }
        }
        Err(last)
    }

    /// Asks a Sentinel for the master, and the master whether it is one: a Sentinel may not know yet.
    async fn find_master(
        &self,
        sentinel: &Node,
        master: &str,
        credentials: &Credentials,
        hear: Option<Hear>,
    ) -> Result<MultiplexedConnection, Failure> {
        let Address { credentials: of_server, database, .. } = &self.terms.address;
        let mut connection = self.connect(sentinel, credentials, 0, None).await?;
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let told: Option<(String, u16)> = command.query_async(&mut connection).await?;
        let Some((host, port)) = told else {
            return Err(Failure::Refused(format!("this Sentinel knows no master {master}")));
        };
        let node = Node { host, port };
        let mut connection = self.connect(&node, of_server, *database, hear).await?;
        let role: Value = redis::cmd("ROLE").query_async(&mut connection).await?;
        match role {
            Value::Array(role) if role.first() == Some(&Value::BulkString(b"master".to_vec())) => {
                Ok(connection)
            }
            _ => Err(Failure::Refused(format!("{node} is no longer the master {master}"))),
        }
    }

    /// Follows a Cluster's members to the one that has our keys.
    async fn find_owner(&self, member: &Node, hear: Option<Hear>) -> Result<MultiplexedConnection, Failure> {
        let mut node = member.clone();
        for _ in 0..REDIRECTS_MAX {
            let mut connection =
                self.connect(&node, &self.terms.address.credentials, 0, hear.clone()).await?;
            let asked: Result<bool, _> =
                redis::cmd("EXISTS").arg(&self.key).query_async(&mut connection).await;
            match asked.map_err(Failure::from) {
                Ok(_) => return Ok(connection),
                Err(Failure::Moved { to }) => {
                    let next = Node::parse(&to, None).map_err(Failure::Refused)?;
                    let host = if next.host.is_empty() { node.host } else { next.host };
                    node = Node { host, port: next.port };
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Refused(format!("the members send us on, more than {REDIRECTS_MAX} times")))
    }

    async fn connect(
        &self,
        node: &Node,
        credentials: &Credentials,
        database: i64,
        hear: Option<Hear>,
    ) -> Result<MultiplexedConnection, Failure> {
        let Terms { address, tls_root, connect_timeout, command_timeout } = &self.terms;
        let (host, port) = (node.host.clone(), node.port);
        let place = if address.is_tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut settings = RedisConnectionInfo::default().set_db(database);
        if let Some(username) = &credentials.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &credentials.password {
            settings = settings.set_password(password);
        }
        if hear.is_some() {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
        }
        let information = place.into_connection_info()?.set_redis_settings(settings);
        // An answer must not wait for the next question.
        let tcp = information.tcp_settings().clone().set_nodelay(true);
        let information = information.set_tcp_settings(tcp);
        let client = if address.is_tls {
            let certificates = TlsCertificates { client_tls: None, root_cert: tls_root.clone() };
            Client::build_with_tls(information, certificates)?
        } else {
            Client::open(information)?
        };
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(*connect_timeout))
            .set_response_timeout(Some(*command_timeout));
        if let Some(hear) = hear {
            config = config.set_push_sender(move |push| {
                hear(push);
                Ok::<(), ()>(())
            });
        }
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
    }
}

/// Sends several commands at once on a connection that somebody has: their answers, in order.
///
/// # Errors
/// [`Failure`], of all or of each. One that fails does not keep the others from being done.
pub async fn send_all(
    connection: &mut MultiplexedConnection,
    commands: &Pipeline,
) -> Result<Vec<Result<Value, Failure>>, Failure> {
    let answers = connection.send_packed_commands(commands, 0, commands.len()).await?;
    Ok(answers.into_iter().map(|answer| read_answer(Ok(answer))).collect())
}

fn read_answer(answer: redis::RedisResult<Value>) -> Result<Value, Failure> {
    match answer {
        Ok(Value::ServerError(error)) => Err(redis::RedisError::from(error).into()),
        Ok(value) => Ok(value),
        Err(error) => Err(error.into()),
    }
}
