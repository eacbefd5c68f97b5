//! Owns what a token says, or a connect hook answers, and the principal that it makes. RFC 7519 §4.
//! Does not know signatures. Invariant: a principal that comes out has a bounded number of bounded names, and ids that
//! make room names.

use std::time::Duration;

use hub::policy::Pattern;
use hub::principal::{Principal, PrincipalKind};
use hub::room::{ROOM_NAME_BYTES_MAX, RoomKind, RoomName};
use hub::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fault::AuthFault;

/// Roles of one principal.
pub const ROLES_MAX: usize = 64;

/// Projects, agents and rooms of one principal, together. 512: what fits a token of 8 KiB is about as many.
pub const GRANTS_MAX: usize = 512;

/// Bytes of a role, or of a token's id.
const NAME_BYTES_MAX: usize = 200;

/// Bytes of a JSON text with claims; a token's are shorter anyway.
pub const CLAIMS_BYTES_MAX: usize = 64 * 1024;

/// The last second of the year 9999.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// What is said about somebody. Names that are not here are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// The user, or the agent.
    pub sub: Option<String>,
    /// Who says so.
    iss: Option<String>,
    /// For whom it is meant.
    aud: Option<OneOrMany>,
    /// From when on it no longer holds.
    exp: Option<NumericDate>,
    /// From when on it holds.
    nbf: Option<NumericDate>,
    /// When it was said.
    iat: Option<NumericDate>,
    /// The token's own id.
    jti: Option<String>,
    /// The application's session (OpenID Connect's name).
    sid: Option<String>,
    /// The application's session.
    session_id: Option<String>,
    /// A list, or words separated by spaces.
    roles: Option<OneOrMany>,
    /// Ids whose rooms `project:<id>` are granted.
    projects: Option<OneOrMany>,
    /// Ids whose rooms `agent:<id>` are granted.
    agents: Option<OneOrMany>,
    /// Rooms that are granted, as patterns.
    rooms: Option<OneOrMany>,
    /// `agent` makes it one.
    kind: Option<String>,
}

/// What tokens must say to be accepted.
#[derive(Clone, Debug, Default)]
pub struct ClaimRules {
    /// Whoever may issue them. Empty: anybody who has a key.
    pub issuers: Vec<Box<str>>,
    /// What they may be meant for. Empty: only those that say nothing of it (RFC 7519 §4.1.3).
    pub audiences: Vec<Box<str>>,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// Whether those that never expire are refused.
    pub requires_expiry: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<Id>),
}

/// Ids are texts; databases also have numbers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

/// Seconds since 1970, perhaps with a fraction. RFC 7519 §2.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "f64")]
struct NumericDate(Timestamp);

impl TryFrom<f64> for NumericDate {
    type Error = &'static str;

    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        if !(0.0..=SECONDS_MAX).contains(&seconds) {
            return Err("a time must lie between 1970 and 9999");
        }
        // Non-negative and far below 2^53, so nothing is lost.
        Ok(Self(Timestamp((seconds * 1000.0) as u64)))
    }
}

impl OneOrMany {
    /// The elements; one text is words separated by spaces.
    fn words(self) -> Vec<Box<str>> {
        match self {
            OneOrMany::One(text) => text.split_ascii_whitespace().map(Box::from).collect(),
            OneOrMany::Many(list) => list
                .into_iter()
                .map(|id| match id {
                    Id::Text(text) => text.into_boxed_str(),
                    Id::Number(number) => number.to_string().into_boxed_str(),
                })
                .collect(),
        }
    }
}

impl Claims {
    /// Reads claims.
    ///
    /// # Errors
    /// The peer's fault: [`AuthFault::TokenMalformed`] if it is no JSON object, [`AuthFault::TokenBadClaim`] if one that
    /// we know is not of its kind or there twice.
    pub fn parse(json: &[u8]) -> Result<Self, AuthFault> {
        if json.len() > CLAIMS_BYTES_MAX {
            return Err(AuthFault::TokenTooLong);
        }
        // A list would be taken for the claims in the order of their declaration.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(AuthFault::TokenMalformed);
        }
        serde_json::from_slice(json).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => AuthFault::TokenBadClaim,
            _ => AuthFault::TokenMalformed,
        })
    }

    /// Checks who says it, for whom, and when.
    ///
    /// # Errors
    /// The peer's fault: expired, not valid yet, another issuer or audience, or a claim that is missing.
    pub fn check(&self, rules: &ClaimRules, now: Timestamp) -> Result<(), AuthFault> {
        if let Some(NumericDate(expires_at)) = self.exp {
            if now >= expires_at.plus(rules.leeway) {
                return Err(AuthFault::TokenExpired);
            }
        } else if rules.requires_expiry {
            return Err(AuthFault::TokenClaimMissing);
        }
        if self.nbf.is_some_and(|NumericDate(from)| from > now.plus(rules.leeway)) {
            return Err(AuthFault::TokenNotYetValid);
        }
        let is_ours = |issuer: &str| rules.issuers.iter().any(|ours| **ours == *issuer);
        if !rules.issuers.is_empty() && !self.iss.as_deref().is_some_and(is_ours) {
            return Err(AuthFault::TokenWrongIssuer);
        }
        let is_meant = match &self.aud {
            None => rules.audiences.is_empty(),
            Some(OneOrMany::One(audience)) => rules.audiences.iter().any(|ours| **ours == **audience),
            Some(OneOrMany::Many(list)) => list.iter().any(|audience| match audience {
                Id::Text(audience) => rules.audiences.iter().any(|ours| **ours == **audience),
                Id::Number(_) => false,
            }),
        };
        if is_meant { Ok(()) } else { Err(AuthFault::TokenWrongAudience) }
    }

    /// The principal that they make.
    ///
    /// One that was accepted after its expiry, because clocks may differ by `leeway`, lasts as much longer.
    ///
    /// # Errors
    /// The peer's fault: there is no user, or something exceeds its bounds.
    pub fn into_principal(self, leeway: Duration, now: Timestamp) -> Result<Principal, AuthFault> {
        let user = self.sub.filter(|sub| !sub.is_empty()).ok_or(AuthFault::TokenClaimMissing)?;
        let user = id_of(RoomKind::User, user)?;
        let session = self.sid.or(self.session_id).filter(|session| !session.is_empty());
        let session = session.map(|session| id_of(RoomKind::Session, session)).transpose()?;
        let is_agent = self.kind.as_deref() == Some("agent");

        let roles = self.roles.map_or_else(Vec::new, OneOrMany::words);
        if roles.len() > ROLES_MAX || roles.iter().any(|role| role.len() > NAME_BYTES_MAX) {
            return Err(AuthFault::TokenBadClaim);
        }
        let mut grants = Vec::new();
        for (kind, ids) in [(RoomKind::Project, self.projects), (RoomKind::Agent, self.agents)] {
            for id in ids.map_or_else(Vec::new, OneOrMany::words) {
                // Ids may have been chosen by users; a project that is called `*` must not open all of them.
                if id.contains('*') {
                    return Err(AuthFault::TokenBadClaim);
                }
                let room = RoomName::of(kind, &id).map_err(|_| AuthFault::TokenBadClaim)?;
                grants.push(Pattern::new(room.as_str()));
            }
        }
        for pattern in self.rooms.map_or_else(Vec::new, OneOrMany::words) {
            if pattern.is_empty() || pattern.len() > ROOM_NAME_BYTES_MAX {
                return Err(AuthFault::TokenBadClaim);
            }
            grants.push(Pattern::new(pattern));
        }
        if is_agent && !user.contains('*') {
            // Its own room: what is sent to it there is for it.
            let own = RoomName::of(RoomKind::Agent, &user).map_err(|_| AuthFault::TokenBadClaim)?;
            grants.push(Pattern::new(own.as_str()));
        }
        if grants.len() > GRANTS_MAX || self.jti.as_ref().is_some_and(|id| id.len() > NAME_BYTES_MAX) {
            return Err(AuthFault::TokenBadClaim);
        }
        Ok(Principal {
            kind: if is_agent { PrincipalKind::Agent } else { PrincipalKind::User },
            user: Some(user),
            session,
            roles,
            grants,
            scopes: Vec::new(),
            expires_at: self.exp.map(|NumericDate(at)| if now < at { at } else { at.plus(leeway) }),
            issued_at: self.iat.map(|NumericDate(at)| at),
            token_id: self.jti.map(String::into_boxed_str),
        })
    }
}

/// An id that makes a room of its own.
fn id_of(kind: RoomKind, id: String) -> Result<Box<str>, AuthFault> {
    RoomName::of(kind, &id).map_err(|_| AuthFault::TokenBadClaim)?;
    Ok(id.into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn principal(json: &str) -> Result<Principal, AuthFault> {
        Claims::parse(json.as_bytes())?.into_principal(Duration::from_secs(5), NOW)
    }

    fn check(json: &str, rules: &ClaimRules) -> Result<(), AuthFault> {
        Claims::parse(json.as_bytes())?.check(rules, NOW)
    }

    #[test]
    fn claims_become_a_principal() {
        let made = principal(
            r#"{"sub":"ann","sid":"s1","roles":["editor","admin"],"projects":["p1",7],"agents":"a1 a2",
                "rooms":["team-*"],"exp":2000,"iat":999.5,"jti":"t1","email":"x","nested":{"a":[1]}}"#,
        )
        .unwrap();
        let grants: Vec<_> = made.grants.iter().map(Pattern::as_str).collect();
        assert_eq!(grants, ["project:p1", "project:7", "agent:a1", "agent:a2", "team-*"]);
        assert_eq!((made.user.as_deref(), made.session.as_deref()), (Some("ann"), Some("s1")));
        assert!(made.is_admin() && made.has_role("editor"));
        assert_eq!(made.kind, PrincipalKind::User);
        assert_eq!(
            (made.expires_at, made.issued_at, made.token_id.as_deref()),
            (Some(Timestamp(2_000_000)), Some(Timestamp(999_500)), Some("t1"))
        );

        let agent = principal(r#"{"sub":"a1","kind":"agent","roles":"one  two","session_id":"s2"}"#).unwrap();
        assert_eq!(agent.kind, PrincipalKind::Agent);
        assert!(agent.has_role("one") && agent.has_role("two"));
        assert!(agent.is_granted(&RoomName::parse("agent:a1").unwrap()));
        assert_eq!(agent.session.as_deref(), Some("s2"));
        assert_eq!(agent.expires_at, None);
        let late = principal(r#"{"sub":"a","exp":999}"#).unwrap();
        assert_eq!(late.expires_at, Some(Timestamp(1_004_000)), "accepted by leeway, so it lasts as long");
    }

    #[test]
    fn claims_of_another_kind_or_out_of_bounds_are_refused() {
        let long = "x".repeat(300);
        let many = |count: usize| serde_json::to_string(&vec!["x"; count]).unwrap();
        for (json, fault) in [
            ("", AuthFault::TokenMalformed),
            ("7", AuthFault::TokenMalformed),
            ("[]", AuthFault::TokenMalformed),
            ("{\"sub\":", AuthFault::TokenMalformed),
            ("{}", AuthFault::TokenClaimMissing),
            (r#"{"sub":""}"#, AuthFault::TokenClaimMissing),
            (r#"{"sub":7}"#, AuthFault::TokenBadClaim),
            (r#"{"sub":"a\nb"}"#, AuthFault::TokenBadClaim),
            (&format!(r#"{{"sub":"{long}"}}"#), AuthFault::TokenBadClaim),
            (r#"{"sub":"a","sub":"b"}"#, AuthFault::TokenBadClaim),
            (r#"{"sub":"a","roles":{"admin":true}}"#, AuthFault::TokenBadClaim),
            (r#"{"sub":"a","projects":["*"]}"#, AuthFault::TokenBadClaim),
            (r#"{"sub":"a","projects":[""]}"#, AuthFault::TokenBadClaim),
            (r#"{"sub":"a","agents":["a*"]}"#, AuthFault::TokenBadClaim),
            (&format!(r#"{{"sub":"a","rooms":["{long}"]}}"#), AuthFault::TokenBadClaim),
            (&format!(r#"{{"sub":"a","jti":"{long}"}}"#), AuthFault::TokenBadClaim),
            (&format!(r#"{{"sub":"a","roles":{}}}"#, many(65)), AuthFault::TokenBadClaim),
            (&format!(r#"{{"sub":"a","rooms":{}}}"#, many(513)), AuthFault::TokenBadClaim),
            (r#"{"sub":"a","exp":"soon"}"#, AuthFault::TokenBadClaim),
            (r#"{"sub":"a","exp":-1}"#, AuthFault::TokenBadClaim),
            (r#"{"sub":"a","exp":1e300}"#, AuthFault::TokenBadClaim),
            (&format!(r#"{{"sub":"a","x":"{}"}}"#, "x".repeat(CLAIMS_BYTES_MAX)), AuthFault::TokenTooLong),
        ] {
            assert_eq!(principal(json).err(), Some(fault), "{json}");
        }
        assert!(principal(&format!(r#"{{"sub":"a","rooms":{},"roles":{}}}"#, many(512), many(64))).is_ok());
    }

    #[test]
    fn issuer_audience_and_times_are_checked() {
        let rules = ClaimRules {
            issuers: vec!["us".into()],
            audiences: vec!["fanfare".into()],
            leeway: Duration::from_secs(5),
            requires_expiry: true,
        };
        let good = r#""iss":"us","aud":["x","fanfare"]"#;
        for (json, outcome) in [
            (format!(r#"{{{good},"exp":1001}}"#), Ok(())),
            (r#"{"iss":"us","aud":"fanfare","exp":1001,"nbf":1004}"#.to_owned(), Ok(())),
            (format!(r#"{{{good},"exp":996}}"#), Ok(())),
            (format!(r#"{{{good},"exp":995}}"#), Err(AuthFault::TokenExpired)),
            (format!(r#"{{{good}}}"#), Err(AuthFault::TokenClaimMissing)),
            (format!(r#"{{{good},"exp":2000,"nbf":1006}}"#), Err(AuthFault::TokenNotYetValid)),
            (r#"{"aud":"fanfare","exp":1001}"#.to_owned(), Err(AuthFault::TokenWrongIssuer)),
            (r#"{"iss":"them","aud":"fanfare","exp":1001}"#.to_owned(), Err(AuthFault::TokenWrongIssuer)),
            (r#"{"iss":"us","exp":1001}"#.to_owned(), Err(AuthFault::TokenWrongAudience)),
            (r#"{"iss":"us","aud":"fan","exp":1001}"#.to_owned(), Err(AuthFault::TokenWrongAudience)),
            (r#"{"iss":"us","aud":[],"exp":1001}"#.to_owned(), Err(AuthFault::TokenWrongAudience)),
        ] {
            assert_eq!(check(&json, &rules), outcome, "{json}");
        }
        let any = ClaimRules::default();
        assert_eq!(check("{}", &any), Ok(()));
        assert_eq!(
            check(r#"{"aud":"x"}"#, &any),
            Err(AuthFault::TokenWrongAudience),
            "meant for somebody else"
        );
        assert_eq!(check(r#"{"exp":1000}"#, &any), Err(AuthFault::TokenExpired));
    }
}
