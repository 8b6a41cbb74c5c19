//! The scripts: each is one atomic step of the directory or of a lease.

use std::sync::LazyLock;

use redis::Script;

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("scripts/", $file))));
    };
}

script!(DRAW, "draw.lua");
script!(BEAT, "beat.lua");
script!(LEAVE, "leave.lua");
script!(SWEEP, "sweep.lua");
script!(WRITE, "write.lua");
script!(CLIENT, "client.lua");
script!(COUNT, "count.lua");
script!(CLAIM, "claim.lua");
script!(RELEASE, "release.lua");
