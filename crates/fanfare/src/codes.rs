//! Owns the codes of errors as peers see them, over HTTP and Socket.IO: one table, never reused.
//! Does not know who reports them.

use std::time::Duration;

use hub::fault::Refusal;

/// Declares the table: a variant, its text on the wire, the HTTP status, and whether the same request may succeed
/// later.
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $status:literal, retry: $retry:literal;)+) => {
        /// Why something was refused. The text is what peers compare with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code there is.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The text on the wire.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)+ }
            }

            /// The HTTP status that goes with it.
            pub(crate) fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)+ }
            }

            /// Whether the same request may succeed later, unchanged.
            pub(crate) fn may_retry(self) -> bool {
                match self { $(Code::$variant => $retry,)+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not of the shape that the route reads.
    BadRequest = "bad_request", 400, retry: false;
    /// Nothing came that says who they are.
    TokenMissing = "token_missing", 401, retry: false;
    /// The token is none that this server can read.
    TokenMalformed = "token_malformed", 401, retry: false;
    /// The token is longer than any may be.
    TokenTooLong = "token_too_long", 401, retry: false;
    /// The token has expired.
    TokenExpired = "token_expired", 401, retry: false;
    /// The token is not valid yet.
    TokenNotYetValid = "token_not_yet_valid", 401, retry: false;
    /// The token's signature is not of a key of ours.
    TokenWrongSignature = "token_wrong_signature", 401, retry: false;
    /// The token's issuer is not one of ours.
    TokenWrongIssuer = "token_wrong_issuer", 401, retry: false;
    /// The token is meant for another audience.
    TokenWrongAudience = "token_wrong_audience", 401, retry: false;
    /// The token has no signature, or of an algorithm for which there is no key.
    TokenAlgorithmRefused = "token_algorithm_refused", 401, retry: false;
    /// The token names a key that is not one of ours.
    TokenKeyUnknown = "token_key_unknown", 401, retry: false;
    /// The token lacks a claim.
    TokenClaimMissing = "token_claim_missing", 401, retry: false;
    /// A claim of the token is not of its kind, or out of bounds.
    TokenBadClaim = "token_bad_claim", 401, retry: false;
    /// The token was revoked.
    TokenRevoked = "token_revoked", 401, retry: false;
    /// The API key is not known.
    KeyUnknown = "key_unknown", 401, retry: false;
    /// A request that must be signed is not.
    SignatureMissing = "signature_missing", 401, retry: false;
    /// A request's signature is not made with our secret.
    SignatureWrong = "signature_wrong", 401, retry: false;
    /// The application does not know them.
    HookRefused = "hook_refused", 401, retry: false;
    /// They are known, and may not.
    Forbidden = "forbidden", 403, retry: false;
    /// The token is another user's.
    TokenOtherUser = "token_other_user", 403, retry: false;
    /// The key or token does not reach as far.
    ScopeMissing = "scope_missing", 403, retry: false;
    /// The role `admin` is needed.
    RoleMissing = "role_missing", 403, retry: false;
    /// A page of this origin may not use the server.
    OriginNotAllowed = "origin_not_allowed", 403, retry: false;
    /// There is nothing at this path, or no such record.
    NotFound = "not_found", 404, retry: false;
    /// The path exists, for another method.
    MethodNotAllowed = "method_not_allowed", 405, retry: false;
    /// The body did not arrive in time.
    BodyTimeout = "body_timeout", 408, retry: true;
    /// There is one with this id, made otherwise.
    AlreadyExists = "already_exists", 409, retry: false;
    /// What the record has become does not allow it, such as ending a second time.
    WrongState = "wrong_state", 409, retry: false;
    /// The user has as many sockets as one may have.
    TooManySockets = "too_many_sockets", 429, retry: true;
    /// More came than one of the settings `[limits]` allows.
    RateLimited = "rate_limited", 429, retry: true;
    /// The body is longer than `rest.body_bytes_max`.
    BodyTooLarge = "body_too_large", 413, retry: false;
    /// A command's arguments are not what it takes.
    BadPayload = "bad_payload", 422, retry: false;
    /// The event's name is empty, too long, or one that Socket.IO keeps for itself.
    BadEventName = "bad_event_name", 422, retry: false;
    /// The room's name is empty, too long, or has control characters.
    BadRoomName = "bad_room_name", 422, retry: false;
    /// An event names no room and no namespace, or contradicts itself.
    BadTarget = "bad_target", 422, retry: false;
    /// An event's data is nested too deeply.
    DataTooDeep = "data_too_deep", 422, retry: false;
    /// The namespace does not exist.
    UnknownNamespace = "unknown_namespace", 422, retry: false;
    /// A list is longer than its limit.
    TooMany = "too_many", 422, retry: false;
    /// The socket is in as many rooms as it may be.
    TooManyRooms = "too_many_rooms", 422, retry: false;
    /// There is no such command.
    UnknownCommand = "unknown_command", 422, retry: false;
    /// There is no such tool.
    UnknownTool = "unknown_tool", 404, retry: false;
    /// As many requests wait for the tool as may.
    ToolBusy = "tool_busy", 503, retry: true;
    /// Something that should work did not.
    Internal = "internal", 500, retry: true;
    /// Nothing can be kept at the moment: the disk is full, or the store does not answer.
    StoreUnavailable = "store_unavailable", 503, retry: true;
    /// The application cannot be asked.
    HookUnavailable = "hook_unavailable", 503, retry: true;
    /// The issuer's keys cannot be fetched.
    KeysUnavailable = "keys_unavailable", 503, retry: true;
    /// More work is waiting than may wait.
    Busy = "busy", 503, retry: true;
}

/// A refusal: its code, and a sentence for whoever reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What peers compare with.
    pub(crate) code: Code,
    /// What people read.
    pub(crate) message: String,
    /// Seconds after which it makes sense to try again, where it does.
    pub(crate) retry_after: Option<u64>,
}

impl Fault {
    /// A refusal.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        // 1 s: what overloads a shard's mailbox passes in far less.
        Self { code, message: message.into(), retry_after: code.may_retry().then_some(1) }
    }

    /// The same, if it is known when to try again. Whole seconds, because HTTP has no others (RFC 9110 §10.2.3).
    pub(crate) fn retry_in(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { retry_after: Some(seconds.max(1)), ..self }
    }

    /// `{code, message}`, with `retry_after` in seconds where trying again makes sense.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut error = serde_json::json!({ "code": self.code.as_str(), "message": self.message });
        if let Some(seconds) = self.retry_after {
            error["retry_after"] = seconds.into();
        }
        error
    }
}

impl From<hub::store::StoreFault> for Fault {
    fn from(fault: hub::store::StoreFault) -> Self {
        Self::new(Code::StoreUnavailable, fault.to_string())
    }
}

impl From<hub::fault::Fault> for Fault {
    fn from(fault: hub::fault::Fault) -> Self {
        let code = match fault.refusal {
            Refusal::BadRoomName => Code::BadRoomName,
            Refusal::BadPayload => Code::BadPayload,
            Refusal::Forbidden => Code::Forbidden,
            Refusal::NotFound => Code::NotFound,
            Refusal::AlreadyExists => Code::AlreadyExists,
            Refusal::WrongState => Code::WrongState,
            Refusal::TooMany => Code::TooMany,
        };
        Self::new(code, fault.message)
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_are_unique_and_their_statuses_are_errors() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{} is there twice", code.as_str());
            assert!((400..600).contains(&code.status()), "{}", code.as_str());
        }
    }
}
