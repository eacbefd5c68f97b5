//! Owns where the broker is, and who we are there. Does not connect to anything but what it names.
//! Invariant: the password is in no debug output and no complaint.

use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};

/// Silence after which the broker is asked for a sign of life, unless the address says another (`?heartbeat=`), in
/// seconds. 10: what RabbitMQ's manual advises; two silent intervals end the connection.
const HEARTBEAT_S: u16 = 10;

/// Time that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A broker's address: `amqp://user:password@host:port/vhost`, or `amqps://` over TLS.
#[derive(Clone, PartialEq)]
pub struct Address {
    uri: AMQPUri,
    /// Certificates that are trusted beside the public ones, as PEM.
    authorities: Option<String>,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Address {
    /// Reads it. AMQP 0-9-1 URI specification of RabbitMQ: a virtual host that is left out is `/`.
    ///
    /// # Errors
    /// Whoever wrote it is at fault; the complaint does not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let complaint = "is no address of a broker such as amqp://user:password@host:5672/vhost";
        let mut uri: AMQPUri = text.trim().parse().map_err(|_| complaint.to_owned())?;
        if uri.authority.host.is_empty() {
            return Err(complaint.to_owned());
        }
        // What common clients make of an address that ends in a slash.
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        Ok(Self { uri, authorities: None })
    }

    /// The same, with certificates of authorities that are trusted beside the public ones, as PEM. Ones that cannot be
    /// read are noticed when TLS begins.
    #[must_use]
    pub fn trusting(self, authorities: Option<String>) -> Self {
        Self { authorities, ..self }
    }

    /// The address for people: without user and password.
    #[must_use]
    pub fn shown(&self) -> String {
        let scheme = match self.uri.scheme {
            AMQPScheme::AMQP => "amqp",
            AMQPScheme::AMQPS => "amqps",
        };
        let authority = &self.uri.authority;
        format!("{scheme}://{}:{}/{}", authority.host, authority.port, self.uri.vhost.trim_start_matches('/'))
    }

    /// Connects. `name` is how the broker's own tools show the connection.
    ///
    /// # Errors
    /// The environment's, in words for the log.
    pub(crate) async fn connect(&self, name: &str) -> Result<Connection, String> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let tls = OwnedTLSConfig { cert_chain: self.authorities.clone(), ..OwnedTLSConfig::default() };
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        let connecting = Connection::connect_uri_with_config(self.uri.clone(), properties, tls, runtime);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(format!("{} cannot be reached: {error}", self.shown())),
            Err(_) => Err(format!("{} did not answer within {CONNECT_TIMEOUT:?}", self.shown())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address = Address::parse("amqp://ann:hunter2@rabbit.internal:5673/prod").unwrap();
        assert_eq!(address.shown(), "amqp://rabbit.internal:5673/prod");
        assert!(!format!("{address:?}").contains("hunter2"));
        assert_eq!(Address::parse("amqps://rabbit").unwrap().shown(), "amqps://rabbit:5671/");
        assert_eq!(Address::parse("amqp://rabbit/").unwrap(), Address::parse("amqp://rabbit/%2f").unwrap());
        for bad in ["", "rabbit", "http://rabbit", "amqp://ann:hunter2@rabbit:port/"] {
            let complaint = Address::parse(bad).expect_err(bad);
            assert!(!complaint.contains("hunter2"), "{complaint}");
        }
    }

    #[test]
    fn the_broker_is_asked_for_signs_of_life_unless_said_otherwise() {
        assert_eq!(Address::parse("amqp://h").unwrap().uri.query.heartbeat, Some(10));
        assert_eq!(Address::parse("amqp://h?heartbeat=60").unwrap().uri.query.heartbeat, Some(60));
    }
}
