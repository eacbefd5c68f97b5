//! Owns what a socket or request shows to say who it is, and where that is looked for. Does not judge it.

use auth::fault::AuthFault;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use engine::{ConnectRequest, Handshake};
use serde_json::{Value, json};

/// Headers that a connect hook gets to see: those that say who somebody is.
const HOOK_HEADERS: [&str; 4] = ["authorization", "cookie", "origin", "user-agent"];

/// What somebody shows.
#[derive(Default)]
pub(crate) struct Presented {
    /// A token, signed pair or API key.
    pub(crate) token: Option<String>,
    /// The user that they say to be.
    pub(crate) user: Option<String>,
    /// The application's session that they say to have.
    pub(crate) session: Option<String>,
    /// The whole auth payload but the token, for the connect hook.
    auth: Value,
    /// Where from; the address alone, because ports differ each time.
    pub(crate) address: Option<String>,
    headers: Vec<(String, String)>,
}

impl Presented {
    /// What a CONNECT shows. The token is looked for in its auth payload, then in the header `Authorization`, then in
    /// the query, of the request that opened the session.
    ///
    /// # Errors
    /// The peer's fault: the payload is not an object, or one of the three is no text.
    pub(crate) fn by_socket(request: &ConnectRequest) -> Result<Self, AuthFault> {
        let auth: Value = request.auth().map_err(|_| AuthFault::TokenMalformed)?;
        let mut fields = match auth {
            Value::Object(fields) => fields,
            Value::Null => serde_json::Map::new(),
            _ => return Err(AuthFault::TokenMalformed),
        };
        let mut text = |name: &str, keeps: bool| {
            let value = if keeps { fields.get(name).cloned() } else { fields.remove(name) };
            match value {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) if text.is_empty() => Ok(None),
                Some(Value::String(text)) => Ok(Some(text)),
                Some(_) => Err(AuthFault::TokenMalformed),
            }
        };
        let token = text("token", false)?;
        let (user, session) = (text("userId", true)?, text("sessionId", true)?);
        let auth = Value::Object(fields);
        let handshake = request.handshake();
        let token = token
            .or_else(|| handshake.header("authorization").and_then(bearer).map(str::to_owned))
            .or_else(|| handshake.query_value("token").filter(|token| !token.is_empty()));
        let headers = HOOK_HEADERS
            .iter()
            .filter_map(|name| handshake.header(name).map(|value| ((*name).to_owned(), value.to_owned())));
        Ok(Self { token, user, session, auth, address: address(handshake), headers: headers.collect() })
    }

    /// A token that a socket shows to go on with.
    pub(crate) fn by_refresh(token: String, handshake: &Handshake) -> Self {
        Self { token: Some(token), address: address(handshake), ..Self::default() }
    }

    /// A token that somebody wants to know more of.
    pub(crate) fn by_hand(token: String) -> Self {
        Self { token: Some(token), ..Self::default() }
    }

    /// What a request shows: `Authorization: Bearer`, else `X-API-Key`.
    pub(crate) fn by_request(headers: &HeaderMap, address: Option<String>) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let token = text(AUTHORIZATION.as_str()).and_then(bearer).or_else(|| text("x-api-key"));
        Self { token: token.map(str::to_owned), address, ..Self::default() }
    }

    /// The question to the connect hook.
    pub(crate) fn to_json(&self) -> Value {
        let headers: serde_json::Map<String, Value> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        json!({ "token": self.token, "auth": self.auth, "address": self.address, "headers": headers })
    }
}

/// The token of an `Authorization` header. RFC 6750 §2.1; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn address(handshake: &Handshake) -> Option<String> {
    handshake.address().map(|address| address.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_shows_a_bearer_token_or_a_key() {
        let token = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            Presented::by_request(&map, None).token
        };
        assert_eq!(token(&[("authorization", "Bearer abc")]).as_deref(), Some("abc"));
        assert_eq!(token(&[("authorization", "bearer  abc ")]).as_deref(), Some("abc"));
        assert_eq!(token(&[("x-api-key", "key")]).as_deref(), Some("key"));
        assert_eq!(token(&[("authorization", "Bearer abc"), ("x-api-key", "key")]).as_deref(), Some("abc"));
        for none in [&[][..], &[("authorization", "Basic abc")], &[("authorization", "Bearer ")]] {
            assert_eq!(token(none), None, "{none:?}");
        }
    }
}
