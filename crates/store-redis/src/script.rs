//! Owns the scripts that run inside Redis, and how one is called: by its digest, and with its text if the server does not
//! know it, which then knows it until it restarts. Does not know what they do.

use std::sync::LazyLock;

use redis::Cmd;

/// A script.
pub struct Script {
    text: &'static str,
    digest: String,
}

/// Does a part of a batch.
pub(crate) static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/commit.lua")));
/// How far rooms have come.
pub(crate) static HEADS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/heads.lua")));
/// The latest of a room.
pub(crate) static LATEST: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/latest.lua")));
/// Records of a list.
pub(crate) static LIST: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/list.lua")));
/// A part of a log.
pub(crate) static PAGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/page.lua")));
/// The newest of a log.
pub(crate) static TAIL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/tail.lua")));

impl Script {
    /// Takes its text.
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        Self { text, digest: redis::Script::new(text).get_hash().to_owned() }
    }

    /// Calls it by its digest.
    pub(crate) fn by_digest<'a>(&self, key: &str, arguments: impl IntoIterator<Item = &'a [u8]>) -> Cmd {
        call("EVALSHA", &self.digest, key, arguments)
    }

    /// Calls it by its text, which the server keeps.
    pub(crate) fn by_text<'a>(&self, key: &str, arguments: impl IntoIterator<Item = &'a [u8]>) -> Cmd {
        call("EVAL", self.text, key, arguments)
    }
}

fn call<'a>(word: &str, script: &str, key: &str, arguments: impl IntoIterator<Item = &'a [u8]>) -> Cmd {
    let mut command = redis::cmd(word);
    command.arg(script).arg(1).arg(key);
    for argument in arguments {
        command.arg(argument);
    }
    command
}
