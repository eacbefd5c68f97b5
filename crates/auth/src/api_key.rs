//! Owns the keys of publishers and operators: how one is made, kept as a hash, and recognised.
//! Does not know requests. Invariant: a key itself is never kept, only its hash.

use hub::policy::Pattern;
use hub::principal::{ADMIN, Principal, PrincipalKind, Scope};
use ring::digest;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::fault::AuthFault;
use crate::hex;
use crate::secret::Secret;

/// Keys of one server. Each is compared with every key that comes, which takes some tens of microseconds for so many.
pub const API_KEYS_MAX: usize = 1_000;

/// Bytes of a key's name.
const NAME_BYTES_MAX: usize = 64;

/// What keys that we make begin with, so that scanners for leaked secrets know them.
const PREFIX: &str = "ff_";

/// Random bytes of a new key: 4 that tell it apart from others, 32 that nobody can guess.
pub const RANDOM_BYTES: usize = 36;

/// A key as it is kept: its name, the SHA-256 of its text, and what it may do.
///
/// A fast hash suffices: a key that we make has 256 random bits, so there is nothing to try out, unlike with passwords.
/// What it must not do is let whoever reads the settings use the keys in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    name: Box<str>,
    hash: [u8; 32],
    scopes: Vec<Scope>,
}

/// Why a line of the settings is no key. Never repeats the line: somebody may have put a key itself there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyFault {
    /// Not of the form `name:hash:scope+scope`.
    BadLine,
    /// The name is empty, too long, or has other characters than letters, digits, `-`, `_` and `.`.
    BadName,
    /// Not 64 lower-case hexadecimal digits.
    BadHash,
    /// A scope other than `publish`, `read` and `admin`, or none.
    BadScope,
    /// The name is there twice.
    SameName,
    /// More than [`API_KEYS_MAX`].
    TooMany,
}

impl std::fmt::Display for ApiKeyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApiKeyFault::BadLine => f.write_str("a key is written as name:hash:scope+scope"),
            ApiKeyFault::BadName => {
                write!(f, "a key's name has 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`")
            }
            ApiKeyFault::BadHash => {
                f.write_str("a key's hash is SHA-256 in 64 lower-case hexadecimal digits, not the key itself")
            }
            ApiKeyFault::BadScope => f.write_str("a key's scopes are publish, read and admin, joined by `+`"),
            ApiKeyFault::SameName => f.write_str("two keys have the same name"),
            ApiKeyFault::TooMany => write!(f, "there are more than {API_KEYS_MAX} keys"),
        }
    }
}

impl std::error::Error for ApiKeyFault {}

/// The line of the settings.
impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scopes: Vec<_> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        write!(f, "{}:{}:{}", self.name, hex::encode(&self.hash), scopes.join("+"))
    }
}

impl ApiKey {
    /// Reads a line of the settings, `name:hash:scope+scope`.
    ///
    /// # Errors
    /// [`ApiKeyFault`]: whoever wrote it is at fault.
    pub fn parse(line: &str) -> Result<Self, ApiKeyFault> {
        let mut parts = line.split(':');
        let (Some(name), Some(hash), Some(scopes), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ApiKeyFault::BadLine);
        };
        let hash = hex::decode(hash).ok_or(ApiKeyFault::BadHash)?;
        let scopes = scopes
            .split('+')
            .map(|scope| Scope::parse(scope.trim()))
            .collect::<Option<Vec<_>>>()
            .ok_or(ApiKeyFault::BadScope)?;
        Self::with_hash(name, hash, scopes)
    }

    /// The key with this text.
    ///
    /// # Errors
    /// [`ApiKeyFault::BadName`] or [`ApiKeyFault::BadScope`].
    pub fn of(name: &str, key: &Secret, scopes: Vec<Scope>) -> Result<Self, ApiKeyFault> {
        Self::with_hash(name, hash_of(key.expose()), scopes)
    }

    /// Makes a key of [`RANDOM_BYTES`] random bytes: its text, `ff_<id>_<secret>`, which is not kept anywhere, and what is.
    ///
    /// # Errors
    /// As [`ApiKey::of`].
    pub fn make(
        name: &str,
        scopes: Vec<Scope>,
        random: [u8; RANDOM_BYTES],
    ) -> Result<(Secret, Self), ApiKeyFault> {
        let (id, secret) = random.split_at(4);
        let text = Secret::new(format!("{PREFIX}{}_{}", hex::encode(id), hex::encode(secret)));
        let kept = Self::of(name, &text, scopes)?;
        Ok((text, kept))
    }

    fn with_hash(name: &str, hash: [u8; 32], scopes: Vec<Scope>) -> Result<Self, ApiKeyFault> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_good) {
            return Err(ApiKeyFault::BadName);
        }
        if scopes.is_empty() {
            return Err(ApiKeyFault::BadScope);
        }
        Ok(Self { name: name.into(), hash, scopes })
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whoever has the key. Its user is `key:<name>`, which no room `user:<id>` of a person is named after unless an
    /// issuer says so; scope `read` may join every room that can be granted, `admin` every room.
    fn principal(&self) -> Principal {
        let is_admin = self.scopes.contains(&Scope::Admin);
        let reads = is_admin || self.scopes.contains(&Scope::Read);
        Principal {
            kind: PrincipalKind::Key,
            user: Some(format!("key:{}", self.name).into()),
            roles: if is_admin { vec![ADMIN.into()] } else { Vec::new() },
            grants: if reads { vec![Pattern::new("*")] } else { Vec::new() },
            scopes: self.scopes.clone(),
            ..Principal::anonymous()
        }
    }
}

/// All keys of a server.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    keys: Vec<ApiKey>,
}

impl ApiKeys {
    /// Adds a key.
    ///
    /// # Errors
    /// [`ApiKeyFault::SameName`] or [`ApiKeyFault::TooMany`].
    pub fn push(&mut self, key: ApiKey) -> Result<(), ApiKeyFault> {
        if self.keys.iter().any(|known| known.name == key.name) {
            return Err(ApiKeyFault::SameName);
        }
        if self.keys.len() >= API_KEYS_MAX {
            return Err(ApiKeyFault::TooMany);
        }
        self.keys.push(key);
        Ok(())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whoever has the key with this text. Looks at every key, whole, so that its time tells nothing of them.
    ///
    /// # Errors
    /// The peer's fault: [`AuthFault::KeyUnknown`].
    pub fn find(&self, key: &str) -> Result<Principal, AuthFault> {
        if key.len() > crate::token::TOKEN_BYTES_MAX {
            return Err(AuthFault::TokenTooLong);
        }
        let hash = hash_of(key);
        // One past the end: none. At most API_KEYS_MAX, so it fits.
        let mut found = u32::MAX;
        for (nth, known) in self.keys.iter().enumerate() {
            let is_this: Choice = known.hash.ct_eq(&hash);
            found.conditional_assign(&u32::try_from(nth).unwrap_or(u32::MAX), is_this);
        }
        let found = usize::try_from(found).ok().and_then(|nth| self.keys.get(nth));
        found.map(ApiKey::principal).ok_or(AuthFault::KeyUnknown)
    }
}

/// Whether a text looks like a key that we made.
#[must_use]
pub fn is_api_key(text: &str) -> bool {
    text.starts_with(PREFIX)
}

fn hash_of(key: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, scopes: &[Scope], first: u8) -> (Secret, ApiKey) {
        let mut random = [7; RANDOM_BYTES];
        random[35] = first;
        ApiKey::make(name, scopes.to_vec(), random).unwrap()
    }

    #[test]
    fn a_key_is_found_by_its_text_and_kept_by_its_hash() {
        let (text, kept) = key("ci", &[Scope::Publish], 1);
        assert_eq!(text.expose().len(), 3 + 8 + 1 + 64);
        assert!(is_api_key(text.expose()) && !crate::token::is_token(text.expose()));
        let line = kept.to_string();
        assert!(!line.contains(text.expose()) && line.starts_with("ci:") && line.ends_with(":publish"));
        assert_eq!(ApiKey::parse(&line), Ok(kept.clone()));

        let (admin_text, admin) = key("ops", &[Scope::Read, Scope::Admin], 2);
        let (read_text, read) = key("board", &[Scope::Read], 3);
        let mut keys = ApiKeys::default();
        assert_eq!(keys.find(text.expose()), Err(AuthFault::KeyUnknown));
        for key in [kept, admin, read] {
            keys.push(key).unwrap();
        }
        let ci = keys.find(text.expose()).unwrap();
        assert_eq!((ci.kind, ci.user.as_deref()), (PrincipalKind::Key, Some("key:ci")));
        assert!(ci.has_scope(Scope::Publish) && !ci.has_scope(Scope::Read) && !ci.is_admin());
        assert!(keys.find(admin_text.expose()).unwrap().is_admin());
        let board = keys.find(read_text.expose()).unwrap();
        assert!(!board.is_admin() && !board.has_scope(Scope::Publish) && board.grants.len() == 1);
        for bad in ["", "ff_", &text.expose()[1..], &text.expose().to_uppercase(), &"x".repeat(8192)] {
            assert_eq!(keys.find(bad), Err(AuthFault::KeyUnknown));
        }
        assert_eq!(keys.find(&"x".repeat(8193)), Err(AuthFault::TokenTooLong));
    }

    #[test]
    fn lines_that_make_no_sense_are_refused_without_being_repeated() {
        let hash = "0".repeat(64);
        for (line, fault) in [
            ("", ApiKeyFault::BadLine),
            ("ff_7_secret", ApiKeyFault::BadLine),
            (&format!("a:{hash}"), ApiKeyFault::BadLine),
            (&format!("a:{hash}:read:x"), ApiKeyFault::BadLine),
            ("a:ff_7_secret:read", ApiKeyFault::BadHash),
            (&format!(":{hash}:read"), ApiKeyFault::BadName),
            (&format!("a b:{hash}:read"), ApiKeyFault::BadName),
            (&format!("a:{hash}:"), ApiKeyFault::BadScope),
            (&format!("a:{hash}:read+write"), ApiKeyFault::BadScope),
        ] {
            let found = ApiKey::parse(line).unwrap_err();
            assert_eq!(found, fault, "{line}");
            assert!(!found.to_string().contains("secret"));
        }
        let mut keys = ApiKeys::default();
        keys.push(key("a", &[Scope::Read], 1).1).unwrap();
        assert_eq!(keys.push(key("a", &[Scope::Read], 2).1), Err(ApiKeyFault::SameName));
    }
}
