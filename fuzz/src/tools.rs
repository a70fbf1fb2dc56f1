//! zstd's contexts are megabytes: one of each for all inputs, as the programs have them.

use std::cell::RefCell;

use spillway_proto::compress::{COLUMNS_LEVEL, Compressor, Decompressor};
use spillway_proto::history::Decoder;

thread_local! {
    static SPARE: RefCell<Option<Tools>> = const { RefCell::new(None) };
}

/// A compressor, a decompressor and a decoder of history; give them back with [`Tools::give_back`].
pub(crate) struct Tools {
    pub(crate) compressor: Compressor,
    pub(crate) decompressor: Decompressor,
    pub(crate) decoder: Decoder,
}

impl Tools {
    pub(crate) fn take() -> Self {
        SPARE.take().unwrap_or_else(|| {
            let mut compressor = Compressor::new(COLUMNS_LEVEL).expect("memory for a compressor");
            compressor.allow_columns(true);
            let decompressor = Decompressor::new().expect("memory for a decompressor");
            Self { compressor, decompressor, decoder: Decoder::new().expect("memory for a decoder") }
        })
    }

    pub(crate) fn give_back(self) {
        SPARE.set(Some(self));
    }
}
