//! Owns a listener's certificate: read from PEM files, and again when they change.
//! Does not know connections. Invariant: files that cannot be used never replace a certificate that can.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

use crate::config::TlsFiles;

/// Time between two looks at the files. Whoever renews certificates does so days before they expire.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the files, and watches them from then on.
///
/// # Errors
/// They cannot be read, or do not belong together: whoever configured them is at fault.
pub(crate) fn watched(files: TlsFiles) -> anyhow::Result<watch::Receiver<Arc<ServerConfig>>> {
    let seen = changed_at(&files);
    let (sender, receiver) = watch::channel(Arc::new(load(&files)?));
    tokio::spawn(follow(files, seen, sender));
    Ok(receiver)
}

async fn follow(files: TlsFiles, mut seen: Changed, sender: watch::Sender<Arc<ServerConfig>>) {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    while !sender.is_closed() {
        ticks.tick().await;
        let now = changed_at(&files);
        if now == seen {
            continue;
        }
        // Remembered even if it fails: the two files are rarely replaced in one instant, and the second one is
        // seen as another change.
        seen = now;
        match load(&files) {
            Ok(config) => {
                sender.send_replace(Arc::new(config));
                tracing::info!(certificate = %files.certificate.display(), "new certificate in use");
            }
            Err(error) => tracing::warn!("the old certificate stays in use: {error:#}"),
        }
    }
}

/// When each of the two files was last written, and how long it was.
type Changed = [Option<(SystemTime, u64)>; 2];

fn changed_at(files: &TlsFiles) -> Changed {
    let changed = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [changed(&files.certificate), changed(&files.key)]
}

fn load(files: &TlsFiles) -> anyhow::Result<ServerConfig> {
    let certificate = || format!("certificate {}", files.certificate.display());
    let key = || format!("key {}", files.key.display());
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .with_context(certificate)?
        .collect::<Result<Vec<_>, _>>()
        .with_context(certificate)?;
    ensure!(!chain.is_empty(), "{} has no certificate in it", files.certificate.display());
    let private = PrivateKeyDer::from_pem_file(&files.key).with_context(key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("{} does not go with {}", key(), certificate()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
