//! Tokens as an attacker would send them, and as issuers make them.

use auth::algorithm::{Algorithm, Hash};
use auth::claims::ClaimRules;
use auth::fault::AuthFault;
use auth::key::{Key, KeySet};
use auth::secret::Secret;
use auth::token::{NewToken, TOKEN_BYTES_MAX, is_token, verify};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hub::principal::Principal;
use hub::time::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const RSA_PEM: &str = include_str!("keys/rsa.pub.pem");
const SECRET: &str = "a secret of at least thirty-two bytes";

fn shared(secret: &str) -> KeySet {
    let mut set = KeySet::default();
    set.push(Key::shared(Secret::new(secret))).unwrap();
    set
}

fn check(token: &str, keys: &KeySet) -> Result<Principal, AuthFault> {
    verify(token, &[keys], &ClaimRules::default(), NOW)
}

fn ann() -> NewToken {
    NewToken { sub: "ann".to_owned(), exp: Some(1_700_000_060), ..NewToken::default() }
}

/// A token whose signature is made by `sign`.
fn token(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_der(include_bytes!("keys/rsa.pk8")).unwrap()
}

fn sign_rsa(padding: &'static dyn signature::RsaEncoding) -> impl Fn(&[u8]) -> Vec<u8> {
    move |message| {
        let key = rsa();
        let mut bytes = vec![0; key.public().modulus_len()];
        key.sign(padding, &SystemRandom::new(), message, &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn every_algorithm_is_accepted_from_its_own_key_and_no_other() {
    let mut tokens = Vec::new();
    let claims = r#"{"sub":"ann"}"#;
    for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        tokens.push((Algorithm::Hmac(hash), ann().sign(hash, &Secret::new(SECRET)), shared(SECRET)));
    }
    let rsa_encodings: [(&str, &'static dyn signature::RsaEncoding); 6] = [
        ("RS256", &signature::RSA_PKCS1_SHA256),
        ("RS384", &signature::RSA_PKCS1_SHA384),
        ("RS512", &signature::RSA_PKCS1_SHA512),
        ("PS256", &signature::RSA_PSS_SHA256),
        ("PS384", &signature::RSA_PSS_SHA384),
        ("PS512", &signature::RSA_PSS_SHA512),
    ];
    let parts = signature::RsaPublicKeyComponents::<Vec<u8>>::from(rsa().public());
    for (name, encoding) in rsa_encodings {
        let algorithm = Algorithm::parse(name).unwrap();
        let token = token(&format!(r#"{{"alg":"{name}"}}"#), claims, sign_rsa(encoding));
        tokens.push((algorithm, token.clone(), KeySet::from_pem(RSA_PEM.as_bytes()).unwrap()));
        let jwk = format!(
            r#"{{"keys":[{{"kty":"RSA","alg":"{name}","n":"{}","e":"{}"}}]}}"#,
            URL_SAFE_NO_PAD.encode(&parts.n),
            URL_SAFE_NO_PAD.encode(&parts.e)
        );
        tokens.push((algorithm, token, KeySet::from_jwks(jwk.as_bytes()).unwrap()));
    }
    for (name, curve, algorithm) in [
        ("ES256", "P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", "P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
    ] {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let token = token(&format!(r#"{{"alg":"{name}"}}"#), claims, |message| {
            pair.sign(&random, message).unwrap().as_ref().to_vec()
        });
        let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
        let jwk = format!(
            r#"{{"keys":[{{"kty":"EC","crv":"{curve}","x":"{}","y":"{}"}}]}}"#,
            URL_SAFE_NO_PAD.encode(x),
            URL_SAFE_NO_PAD.encode(y)
        );
        tokens.push((Algorithm::parse(name).unwrap(), token, KeySet::from_jwks(jwk.as_bytes()).unwrap()));
    }
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let eddsa = token(r#"{"alg":"EdDSA"}"#, claims, |message| pair.sign(message).as_ref().to_vec());
    let jwk = format!(
        r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{}"}}]}}"#,
        URL_SAFE_NO_PAD.encode(pair.public_key())
    );
    tokens.push((Algorithm::EdDsa, eddsa, KeySet::from_jwks(jwk.as_bytes()).unwrap()));

    for algorithm in Algorithm::ALL {
        assert!(tokens.iter().any(|(covered, ..)| *covered == algorithm), "{algorithm:?} is not tried");
    }
    for (nth, (algorithm, token, own)) in tokens.iter().enumerate() {
        assert_eq!(check(token, own).unwrap().user.as_deref(), Some("ann"), "{algorithm:?} {nth}");
        for (other, _, foreign) in &tokens {
            // The same key serves several algorithms, unless it says which one.
            let is_same_kind = std::mem::discriminant(other) == std::mem::discriminant(algorithm)
                || matches!(
                    (other, algorithm),
                    (Algorithm::Rsa(_) | Algorithm::RsaPss(_), Algorithm::Rsa(_) | Algorithm::RsaPss(_))
                );
            if !is_same_kind {
                assert_eq!(
                    check(token, foreign),
                    Err(AuthFault::TokenAlgorithmRefused),
                    "{algorithm:?} {other:?}"
                );
            }
        }
    }
}

#[test]
fn a_token_without_a_signature_is_refused_however_it_is_written() {
    let keys = shared(SECRET);
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        for signature in [&b""[..], b"x"] {
            let token = token(&format!(r#"{{"alg":"{alg}"}}"#), r#"{"sub":"ann"}"#, |_| signature.to_vec());
            assert_eq!(check(&token, &keys), Err(AuthFault::TokenAlgorithmRefused), "{alg}");
        }
    }
    let stripped = ann().sign(Hash::Sha256, &Secret::new(SECRET));
    let stripped = &stripped[..=stripped.rfind('.').unwrap()];
    assert_eq!(check(stripped, &keys), Err(AuthFault::TokenWrongSignature));
}

#[test]
fn a_public_key_is_never_a_shared_secret() {
    let forged = ann().sign(Hash::Sha256, &Secret::new(RSA_PEM));
    let public = KeySet::from_pem(RSA_PEM.as_bytes()).unwrap();
    assert_eq!(check(&forged, &public), Err(AuthFault::TokenAlgorithmRefused));
    let mut both = public.clone();
    both.extend(shared(SECRET)).unwrap();
    assert_eq!(check(&forged, &both), Err(AuthFault::TokenWrongSignature));
}

#[test]
fn a_key_that_says_its_algorithm_or_name_is_used_for_that_alone() {
    let pair = |seed| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let jwk = |seed, kid: &str| {
        format!(
            r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{}"}}"#,
            URL_SAFE_NO_PAD.encode(pair(seed).public_key())
        )
    };
    let set = format!(r#"{{"keys":[{},{}]}}"#, jwk(1, "a"), jwk(2, "b"));
    let set = KeySet::from_jwks(set.as_bytes()).unwrap();
    let signed = |seed, header: &str| {
        token(header, r#"{"sub":"ann"}"#, |message| pair(seed).sign(message).as_ref().to_vec())
    };
    assert!(check(&signed(1, r#"{"alg":"EdDSA","kid":"a"}"#), &set).is_ok());
    assert!(check(&signed(2, r#"{"alg":"EdDSA"}"#), &set).is_ok(), "without a name all are tried");
    for (token, fault) in [
        (signed(1, r#"{"alg":"EdDSA","kid":"b"}"#), AuthFault::TokenWrongSignature),
        (signed(3, r#"{"alg":"EdDSA"}"#), AuthFault::TokenWrongSignature),
        (signed(1, r#"{"alg":"EdDSA","kid":"c"}"#), AuthFault::TokenKeyUnknown),
        (signed(1, r#"{"alg":"EdDSA","kid":7}"#), AuthFault::TokenMalformed),
        (signed(1, r#"{"alg":"EdDSA","crit":["exp"],"exp":1}"#), AuthFault::TokenMalformed),
        (signed(1, r#"{"alg":"none","alg":"EdDSA"}"#), AuthFault::TokenMalformed),
        (signed(1, r#"{"kid":"a"}"#), AuthFault::TokenMalformed),
        (signed(1, r#"["EdDSA"]"#), AuthFault::TokenMalformed),
    ] {
        assert_eq!(check(&token, &set), Err(fault));
    }
    let rsa_only = token(r#"{"alg":"PS256"}"#, r#"{"sub":"ann"}"#, sign_rsa(&signature::RSA_PSS_SHA256));
    let parts = signature::RsaPublicKeyComponents::<Vec<u8>>::from(rsa().public());
    let bound = format!(
        r#"{{"keys":[{{"kty":"RSA","alg":"RS256","n":"{}","e":"{}"}}]}}"#,
        URL_SAFE_NO_PAD.encode(&parts.n),
        URL_SAFE_NO_PAD.encode(&parts.e)
    );
    let bound = KeySet::from_jwks(bound.as_bytes()).unwrap();
    assert_eq!(check(&rsa_only, &bound), Err(AuthFault::TokenAlgorithmRefused));
}

#[test]
fn any_change_of_a_token_is_refused_and_none_panics() {
    let keys = shared(SECRET);
    let good = NewToken { roles: vec!["admin".to_owned()], ..ann() }.sign(Hash::Sha256, &Secret::new(SECRET));
    assert!(is_token(&good) && check(&good, &keys).unwrap().is_admin());
    for at in 0..good.len() {
        for replacement in ['A', 'z', '.', '=', '\u{e9}'] {
            if good[at..].starts_with(replacement) {
                continue;
            }
            let mut changed = good.clone();
            changed.replace_range(at..=at, &replacement.to_string());
            assert!(check(&changed, &keys).is_err(), "{at} {replacement}");
        }
        assert!(check(&good[..at], &keys).is_err(), "cut at {at}");
    }
    for (bad, fault) in [
        (String::new(), AuthFault::TokenMalformed),
        (".".to_owned(), AuthFault::TokenMalformed),
        ("..".to_owned(), AuthFault::TokenMalformed),
        (format!("{good}."), AuthFault::TokenMalformed),
        (format!("{good} "), AuthFault::TokenMalformed),
        ("x".repeat(TOKEN_BYTES_MAX + 1), AuthFault::TokenTooLong),
        (
            NewToken { exp: Some(1_699_999_999), ..ann() }.sign(Hash::Sha256, &Secret::new(SECRET)),
            AuthFault::TokenExpired,
        ),
        (
            NewToken { nbf: Some(1_700_000_010), ..ann() }.sign(Hash::Sha256, &Secret::new(SECRET)),
            AuthFault::TokenNotYetValid,
        ),
        (ann().sign(Hash::Sha256, &Secret::new("another")), AuthFault::TokenWrongSignature),
        (NewToken::default().sign(Hash::Sha256, &Secret::new(SECRET)), AuthFault::TokenClaimMissing),
    ] {
        assert_eq!(check(&bad, &keys), Err(fault), "{bad}");
    }
}

#[test]
fn the_published_example_of_ed25519_has_a_good_signature() {
    // RFC 8037 appendix A.4. What it signs is no claims: that is found out only once the signature is good.
    let jwk = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let keys = KeySet::from_jwks(jwk.as_bytes()).unwrap();
    let example = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(check(example, &keys), Err(AuthFault::TokenMalformed));
    assert_eq!(check(&example.replace("hgyY", "hgyZ"), &keys), Err(AuthFault::TokenWrongSignature));
}
