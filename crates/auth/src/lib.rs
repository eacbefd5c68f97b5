//! Who somebody is: tokens, signed pairs and API keys become a [`hub::principal::Principal`], or a [`fault::AuthFault`].
//!
//! Pure: keys, text and the time are arguments; nothing is fetched, read, kept or logged here. What comes from outside
//! never panics, every text has a bound, and no fault repeats what it complains about: tokens stay out of logs.
//!
//! | module | noun |
//! |---|---|
//! | [`token`] | a JSON Web Token, and whether it holds |
//! | [`key`] | what tokens are checked with: a secret, PEM, a JWK set |
//! | [`algorithm`] | the signatures that a token may have |
//! | [`claims`] | what a token says, and the principal that it makes |
//! | [`pair`] | `user:signature` |
//! | [`api_key`] | keys of publishers, kept as hashes |
//! | [`webhook`] | signatures of requests that others send us |
//! | [`revocation`] | what was taken back before it expired |
//! | [`secret`] | a text that does not show itself |
//! | [`fault`] | why somebody was not believed |

pub mod algorithm;
pub mod api_key;
pub mod claims;
pub mod digest;
pub mod fault;
mod hex;
pub mod key;
pub mod pair;
pub mod revocation;
pub mod secret;
pub mod token;
pub mod webhook;
