//! TLS: certificates are used, replaced while running, and checked at the start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::fanfare::{Fanfare, PATIENCE, command, until};

#[test]
fn a_listener_speaks_tls_and_takes_a_new_certificate_while_running() {
    let folder = folder("tls-reload");
    let first = issue(&folder);
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let server = Fanfare::start(&[
        "--only",
        "api",
        "--tls-certificate",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ]);
    assert!(server.api().starts_with("https://"));
    let url = format!("{}/livez", server.api());
    assert!(trusts(&first, &url));

    // Halfway through a renewal the files do not go together: the old certificate stays.
    let second = issue(&folder);
    until(PATIENCE, "the new certificate is used", || trusts(&second, &url));
    assert!(!trusts(&first, &url));
    std::fs::write(&certificate, "no certificate").unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(trusts(&second, &url), "files that cannot be used replace nothing");
}

#[test]
fn files_that_cannot_be_used_are_refused_at_the_start() {
    let folder = folder("tls-bad");
    std::fs::write(folder.join("cert.pem"), "no certificate").unwrap();
    let certificate = folder.join("cert.pem");
    let arguments =
        ["serve", "--only", "api", "--api-port", "0", "--tls-key", "/no/key.pem", "--tls-certificate"];
    let output = command(&arguments).arg(&certificate).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cert.pem"));
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a new certificate for 127.0.0.1 and its key; answers the certificate.
fn issue(folder: &Path) -> String {
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), issued.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), issued.signing_key.serialize_pem()).unwrap();
    issued.cert.pem()
}

/// Whether who trusts only this certificate gets an answer.
fn trusts(certificate: &str, url: &str) -> bool {
    let root = Certificate::from_pem(certificate.as_bytes()).unwrap();
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[root])).build();
    let config = ureq::Agent::config_builder().tls_config(tls).proxy(None).timeout_global(Some(PATIENCE));
    config.build().new_agent().get(url).call().is_ok()
}
