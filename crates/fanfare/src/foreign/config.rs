//! Owns who the others are, as the program uses it, made from the section `[adapter]` once. Does not connect.

use std::time::Duration;

use adapter::{Kind, Options};
use store_redis::{Address, Connector};

use crate::config::nonzero;
use crate::settings::AdapterSettings;

/// Time in which a connection must be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Namespaces that there are.
const NAMESPACES: [&str; 4] = ["/", "/ws", "/logs", "/admin"];

/// How to be one of them.
#[derive(Clone, Debug)]
pub(crate) struct AdapterConfig {
    /// What the peer needs.
    pub(super) options: Options,
}

impl AdapterConfig {
    /// Converts the section; `None` if there is no Redis, or it is switched off.
    ///
    /// # Errors
    /// Whoever wrote the settings is at fault.
    pub(crate) fn convert(raw: AdapterSettings) -> Result<Option<Self>, String> {
        if raw.url.is_empty() || !raw.enabled {
            return Ok(None);
        }
        let address =
            Address::parse(raw.url.expose()).map_err(|complaint| format!("adapter.url: {complaint}"))?;
        let tls_root = match raw.ca_file.as_str() {
            "" => None,
            path => Some(
                std::fs::read(path)
                    .map_err(|error| format!("adapter.ca_file: {path} cannot be read: {error}"))?,
            ),
        };
        let kind = match raw.kind.as_str() {
            "classic" => Kind::Classic,
            "sharded" => Kind::Sharded,
            "sharded-static" => Kind::ShardedStatic,
            other => {
                return Err(format!("adapter.kind is classic, sharded or sharded-static, not `{other}`"));
            }
        };
        if raw.prefix.is_empty() {
            return Err("adapter.prefix is empty: name what the channels begin with".to_owned());
        }
        if raw.namespaces.is_empty() {
            return Err("adapter.namespaces is empty; set adapter.enabled to false instead".to_owned());
        }
        if let Some(unknown) = raw.namespaces.iter().find(|name| !NAMESPACES.contains(&name.as_str())) {
            return Err(format!("adapter.namespaces: there is no namespace `{unknown}`"));
        }
        let options = Options {
            connector: Connector::new(address, tls_root, CONNECT_TIMEOUT),
            kind,
            prefix: raw.prefix,
            namespaces: raw.namespaces,
            python: Some(raw.python_channel).filter(|channel| !channel.is_empty()),
            patience: nonzero("adapter.patience", &raw.patience)?,
        };
        Ok(Some(Self { options }))
    }
}

#[cfg(test)]
mod tests {
    use ::auth::secret::Secret;

    use super::*;

    fn raw(edit: impl FnOnce(&mut AdapterSettings)) -> AdapterSettings {
        let url = Secret::new("redis://:hunter2@h");
        let mut raw = AdapterSettings { url, ..AdapterSettings::default() };
        edit(&mut raw);
        raw
    }

    #[test]
    fn an_address_alone_is_enough() {
        let config = AdapterConfig::convert(raw(|_| ())).unwrap().unwrap();
        let Options { kind, prefix, namespaces, python, .. } = &config.options;
        assert_eq!(
            (*kind, prefix.as_str(), python.as_deref()),
            (Kind::Classic, "socket.io", Some("socketio"))
        );
        assert_eq!(namespaces, &["/", "/ws"]);
        assert!(!format!("{config:?}").contains("hunter2"));
        for none in [raw(|raw| raw.enabled = false), AdapterSettings::default()] {
            assert!(AdapterConfig::convert(none).unwrap().is_none());
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_by_their_names() {
        for (bad, complaint) in [
            (raw(|raw| raw.url = Secret::new("http://:hunter2@h")), "adapter.url: "),
            (raw(|raw| raw.ca_file = "/nowhere.pem".into()), "adapter.ca_file: /nowhere.pem"),
            (raw(|raw| raw.kind = "streams".into()), "adapter.kind is"),
            (raw(|raw| raw.prefix.clear()), "adapter.prefix is empty"),
            (raw(|raw| raw.namespaces.clear()), "adapter.namespaces is empty"),
            (raw(|raw| raw.namespaces.push("/x".into())), "no namespace `/x`"),
            (raw(|raw| raw.patience = "0s".into()), "adapter.patience"),
        ] {
            let told = AdapterConfig::convert(bad).unwrap_err();
            assert!(told.contains(complaint) && !told.contains("hunter2"), "{told}");
        }
    }
}
