//! Owns how polling replies are compressed, and which way a request accepts.
//! Does not know replies.

use std::io::Write;

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// How a polling reply may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    /// As headers have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        }
    }

    /// The bytes, compressed.
    pub(crate) fn encode(self, body: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::fast();
        let packed = match self {
            Coding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Coding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
        };
        packed.expect("invariant: writing to memory cannot fail")
    }
}

/// The best coding that the request accepts; gzip on a tie. RFC 9110 §12.5.3.
pub(crate) fn accepted_coding(request: &HeaderMap) -> Option<Coding> {
    let mut best: Option<(u32, Coding)> = None;
    for value in request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()) {
        for part in value.split(',') {
            let mut pieces = part.split(';').map(str::trim);
            let coding = match pieces.next() {
                Some("gzip" | "x-gzip" | "*") => Coding::Gzip,
                Some("deflate") => Coding::Deflate,
                _ => continue,
            };
            let quality = pieces
                .find_map(|piece| piece.strip_prefix("q="))
                .map_or(Some(1.0), |quality| quality.parse::<f32>().ok())
                .unwrap_or(0.0);
            // Thousandths are all that a quality may have; gzip wins a tie.
            let rank = (quality.clamp(0.0, 1.0) * 1000.0) as u32 * 2 + u32::from(coding == Coding::Gzip);
            if quality > 0.0 && best.is_none_or(|(found, _)| rank > found) {
                best = Some((rank, coding));
            }
        }
    }
    best.map(|(_, coding)| coding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coding(accept: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
        accepted_coding(&headers)
    }

    #[test]
    fn gzip_wins_a_tie_and_quality_decides_otherwise() {
        assert_eq!(coding("gzip, deflate"), Some(Coding::Gzip));
        assert_eq!(coding("deflate, gzip"), Some(Coding::Gzip));
        assert_eq!(coding("gzip;q=0.5, deflate;q=0.8"), Some(Coding::Deflate));
        assert_eq!(coding("gzip;q=0"), None);
        assert_eq!(coding("br"), None);
    }
}
