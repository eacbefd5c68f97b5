//! What fuzz targets check, one function each: any bytes go in, and a broken promise panics.
//! Does not know the fuzzer: the same functions replay the committed corpora in ordinary tests.

mod codecs;
mod shard;

pub use codecs::{
    deflate_inflate, eio_payload, eio_payload_v3, eio_query, eio_text, sio_assembler, sio_msgpack, sio_text,
    ws_decoder,
};
pub use shard::shard;

/// One target: any bytes.
pub type Target = fn(&[u8]);

/// Every target with its name, which is also the name of its corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("ws_decoder", ws_decoder),
    ("deflate_inflate", deflate_inflate),
    ("eio_text", eio_text),
    ("eio_payload", eio_payload),
    ("eio_payload_v3", eio_payload_v3),
    ("eio_query", eio_query),
    ("sio_text", sio_text),
    ("sio_msgpack", sio_msgpack),
    ("sio_assembler", sio_assembler),
    ("shard", shard),
];
