//! Owns where Redis is, as settings write it. Does not connect. Invariant: what is shown of an address has no secret.
//!
//! | written | means |
//! |---|---|
//! | `redis://user:password@host:6379/0` | one server, and the number of its database |
//! | `redis+sentinel://user:password@host:26379,host:26379/name/0` | whichever server these Sentinels call the master `name` |
//! | `redis+cluster://user:password@host:6379,host:6379` | whichever server of the Cluster has our slot |
//!
//! `rediss`, `rediss+sentinel` and `rediss+cluster` are the same over TLS. User and password are the servers'; those of
//! Sentinels are `?sentinel_username=…&sentinel_password=…`. What has special characters is written with `%`.

use std::fmt;

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Node {
    /// Reads `host:port`; an IPv6 address is in brackets, or, as servers tell it, is not.
    pub(crate) fn parse(text: &str, default_port: Option<u16>) -> Result<Self, String> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match (port, default_port) {
            (Some(port), _) => port.parse().map_err(|_| format!("{port:?} is no port"))?,
            (None, Some(port)) => port,
            (None, None) => return Err(format!("{text:?} has no port")),
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Who we are to a server.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", if self.password.is_some() { "***" } else { "none" })
    }
}

/// How the right server is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is the first node.
    Single,
    /// The nodes are Sentinels, who know.
    Sentinel { master: String, credentials: Credentials },
    /// The nodes are members of a Cluster, who send us on.
    Cluster,
}

/// Where Redis is. See the crate for how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(crate) way: Way,
    /// At least one.
    pub(crate) nodes: Vec<Node>,
    pub(crate) credentials: Credentials,
    pub(crate) database: i64,
    pub(crate) is_tls: bool,
}

impl Address {
    /// The hosts and ports that it names, without whoever it lets in.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.nodes.iter().map(Node::to_string).collect()
    }

    /// Reads an address.
    ///
    /// # Errors
    /// The caller's fault, as a sentence without secrets.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it must begin like redis://")?;
        let (is_tls, kind) = match scheme.strip_prefix("rediss") {
            Some(kind) => (true, kind),
            None => (false, scheme.strip_prefix("redis").unwrap_or("?")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may have an unescaped `@`, a host may not.
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let credentials = user.map_or(Ok(Credentials::default()), read_credentials)?;
        let default_port = if kind == "+sentinel" { 26_379 } else { 6_379 };
        let nodes: Vec<Node> =
            hosts.split(',').map(|host| Node::parse(host, Some(default_port))).collect::<Result<_, _>>()?;
        if nodes.iter().any(|node| node.host.is_empty()) {
            return Err("it names no host".to_owned());
        }
        let mut of_sentinels = Credentials::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "sentinel_username" => of_sentinels.username = Some(unescape(value)?),
                "sentinel_password" => of_sentinels.password = Some(unescape(value)?),
                _ => return Err(format!("there is no parameter {name:?}")),
            }
        }
        let (way, database) = match kind {
            "" if nodes.len() > 1 => return Err("several hosts need +sentinel or +cluster".to_owned()),
            "" => (Way::Single, path),
            "+sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err("the name of the master must follow the hosts, as in /mymaster".to_owned());
                }
                (Way::Sentinel { master: unescape(master)?, credentials: of_sentinels }, database)
            }
            "+cluster" if path.is_empty() => (Way::Cluster, ""),
            "+cluster" => return Err("a Cluster has no numbered databases".to_owned()),
            _ => {
                return Err(format!(
                    "{scheme:?} is none of redis, redis+sentinel, redis+cluster, rediss, rediss+sentinel and \
                     rediss+cluster"
                ));
            }
        };
        let database = match database {
            "" => 0,
            number => number.parse::<u16>().map_err(|_| format!("{number:?} is no number of a database"))?,
        };
        Ok(Self { way, nodes, credentials, database: i64::from(database), is_tls })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        match &self.way {
            Way::Single => write!(f, "{}", nodes.join(",")),
            Way::Sentinel { master, .. } => write!(f, "master {master} of Sentinels {}", nodes.join(",")),
            Way::Cluster => write!(f, "Cluster {}", nodes.join(",")),
        }
    }
}

fn read_credentials(text: &str) -> Result<Credentials, String> {
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    let given = |text: &str| if text.is_empty() { Ok(None) } else { unescape(text).map(Some) };
    Ok(Credentials { username: given(username)?, password: given(password)? })
}

/// Puts bytes in place of `%41` and the like.
fn unescape(text: &str) -> Result<String, String> {
    let bad = || "a % must be followed by two hexadecimal digits, and all be UTF-8".to_owned();
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(bad);
            let (high, low) = (digit()?, digit()?);
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> Node {
        Node { host: host.to_owned(), port }
    }

    #[test]
    fn one_server_is_read() {
        let address = Address::parse("redis://localhost").unwrap();
        assert_eq!((address.way, address.nodes), (Way::Single, vec![node("localhost", 6379)]));
        let address = Address::parse("rediss://me:p%40ss@[::1]:7000/3").unwrap();
        assert_eq!((address.is_tls, address.database), (true, 3));
        assert_eq!(address.nodes, [node("::1", 7000)]);
        assert_eq!(address.credentials.username.as_deref(), Some("me"));
        assert_eq!(address.credentials.password.as_deref(), Some("p@ss"));
        assert_eq!(Address::parse("redis://:secret@h").unwrap().credentials.username, None);
    }

    #[test]
    fn sentinels_and_clusters_are_read() {
        let text = "redis+sentinel://u:p@a,b:1/my%2Dmaster/2?sentinel_password=q&sentinel_username=s";
        let address = Address::parse(text).unwrap();
        assert_eq!(address.nodes, [node("a", 26_379), node("b", 1)]);
        let Way::Sentinel { master, credentials } = address.way else { panic!("{address:?}") };
        assert_eq!((master.as_str(), address.database), ("my-master", 2));
        assert_eq!(
            (credentials.username.as_deref(), credentials.password.as_deref()),
            (Some("s"), Some("q"))
        );
        let address = Address::parse("rediss+cluster://a:1,b:2,c:3").unwrap();
        assert_eq!((address.way, address.nodes.len(), address.is_tls), (Way::Cluster, 3, true));
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_its_secrets() {
        for bad in [
            "localhost",
            "http://u:hidden@h",
            "redis://",
            "redis://u:hidden@",
            "redis://u:hidden@h:port",
            "redis://u:hidden@h:99999",
            "redis://u:hidden@a,b",
            "redis://u:hidden@h/x",
            "redis://u:hidden%4@h",
            "redis://u:hidden@h?x=hidden",
            "redis+sentinel://u:hidden@h",
            "redis+cluster://u:hidden@h/1",
            "redis+other://u:hidden@h",
        ] {
            let complaint = Address::parse(bad).unwrap_err();
            assert!(!complaint.contains("hidden"), "{bad}: {complaint}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let address = Address::parse("redis+sentinel://u:hidden@h/m?sentinel_password=hidden").unwrap();
        assert!(!format!("{address:?} {address}").contains("hidden"));
    }
}
